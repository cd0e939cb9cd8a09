"""One step of the optimizer, of one or several batches."""

from ppkd.bridge.bad_images import STAND_IN
from ppkd.engine.parallel import exchange


class Step:
    """Adds up the gradients of a step's batches and, at the last of them, lets the optimizer take it.

    Args:
        model: what is trained, as `parallel.distribute` gives it.
        optimizing: `optimizing.Optimizing`.
        precision: `precision.Precision`.
        clipping: `clipping.Clipping`.
        averaging: `averaging.Averaging`.
        numerics: `numerics.Numerics`.
        restart: `restart.Restart`, for the learning rate after one.
        standing: `standing.Standing`; only read.
    """

    def __init__(self, model, optimizing, precision, clipping, averaging, numerics, restart, standing):
        self._model, self._optimizing, self._precision, self._clipping = model, optimizing, precision, clipping
        self._averaging, self._numerics, self._restart, self._standing = averaging, numerics, restart, standing

    def train(self, batch):
        """Train on the batch at which the run stands.

        Args:
            batch: ppdet's batch, or one without images, of which all were bad.

        Returns:
            Losses by name of each batch that counts: of this one; or, where steps may be skipped, of all batches of the
            step at its end.
        """
        at = self._standing
        inputs = dict(batch)  # models write into what they get
        if at.begins_step:
            self._numerics.begin()
        losses = self._losses(batch, inputs) if "image" in batch else {}
        if losses:
            self._backward(losses, STAND_IN in inputs, at.parts)
            self._numerics.add(at.place, inputs, losses)
        if at.ends_step:
            exchange(self._model)
            self._end()
        return self._numerics.take() if at.ends_step or not self._numerics.skips else []

    def _backward(self, losses, nothing, parts):
        part = None if nothing else self._clipping.separates(losses)
        loss = losses["loss"]
        if parts > 1:
            loss, part = loss / parts, part if part is None else part / parts
        if part is not None:
            self._clipping.keep(part)
        self._precision.backward(loss)

    def _losses(self, batch, inputs):
        try:
            with self._precision.context():
                return self._model(batch)
        except ValueError as error:
            self._numerics.failed(self._standing.place, inputs, error)
            return {}

    def _end(self):
        good = self._numerics.good()
        if good:
            self._clipping.split()
        else:
            self._clipping.forget()
        if good or self._precision.scales:  # a scaler skips by itself, and has to see what it skips
            self._optimizing.step(self._precision, self._restart.factor())
        self._optimizing.end()
        if good:
            self._averaging.update()
