"""One step of the optimizer, of one or several batches."""

from ppkd.bridge.bad_images import STAND_IN
from ppkd.engine.parallel import exchange


class Step:
    """Adds up the gradients of a step's batches and, at the last of them, lets the optimizer take it.

    Args:
        model: what is trained, as `parallel.distribute` gives it.
        update: `update.Update`.
        precision: `precision.Precision`.
        averaging: `averaging.Averaging`.
        numerics: `numerics.Numerics`.
        restart: `restart.Restart`, for the learning rate after one.
        standing: `standing.Standing`; only read.
    """

    def __init__(self, model, update, precision, averaging, numerics, restart, standing):
        self._model, self._update, self._precision = model, update, precision
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
            self._update.begin(at.watched)
        losses = self._losses(batch, inputs) if "image" in batch else {}
        if losses:
            self._backward(losses, STAND_IN in inputs, at.parts)
            self._numerics.add(at.place, inputs, losses)
        if at.ends_step:
            exchange(self._model)
            self._end()
        return self._numerics.take() if at.ends_step or not self._numerics.skips else []

    def _backward(self, losses, nothing, parts):
        self._update.keep(losses, 0.0 if nothing else 1 / parts)
        self._precision.backward(losses["loss"] / parts if parts > 1 else losses["loss"])

    def _losses(self, batch, inputs):
        try:
            with self._precision.context():
                return self._model(batch)
        except ValueError as error:
            self._numerics.failed(self._standing.place, inputs, error)
            return {}

    def _end(self):
        good, factor = self._numerics.good(), self._restart.factor()
        if good:
            self._update.take(factor)
        else:
            self._update.leave(factor)
        self._update.optimizing.end()
        if good:
            self._averaging.update()
