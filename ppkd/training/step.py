"""One step of the optimizer, of one or several batches."""

from paddle.utils import unique_name

from ppkd.engine.parallel import without_exchange


class Step:
    """Adds up the gradients of a step's batches and, at the last of them, lets the optimizer take it.

    Args:
        trainer: `trainer.Trainer`, for its model, optimizer, schedule, precision, average, numerics and sizes.

    Attributes:
        resumed: the optimizer's state that a run went on from, until its first step; Paddle's optimizer does not have
            it before.
    """

    def __init__(self, trainer):
        self._trainer, self.resumed = trainer, None

    def train(self, batch):
        """Train on a batch.

        Args:
            batch: ppdet's batch, or one without images, of which all were bad.

        Returns:
            Losses by name of each batch that counts: of this one; or, where steps may be skipped, of all batches of the
            step at its end.
        """
        t = self._trainer
        first = t.batch - t.batch % t.accumulate
        parts = min(t.accumulate, t.batches - first)
        last = t.batch + 1 == first + parts
        inputs = dict(batch)  # models write into what they get
        if t.batch == first:
            t.numerics.begin()
        with without_exchange(t.model, last):
            losses = self._losses(batch, inputs) if "image" in batch else {}
            if losses:
                t.precision.backward(losses["loss"] if parts == 1 else losses["loss"] / parts)
                t.numerics.add((t.epoch, t.batch, t.step), inputs, losses)
        if last:
            self._end()
        return t.numerics.take() if last or not t.numerics.skips else []

    def _losses(self, batch, inputs):
        t = self._trainer
        try:
            with t.precision.context():
                return t.model(batch)
        except ValueError as error:
            t.numerics.failed((t.epoch, t.batch, t.step), inputs, error, t.reload)
            return {}

    def _end(self):
        t = self._trainer
        good = t.numerics.good(t.learned())
        if good or t.precision.scaler.is_enable():  # a scaler skips by itself, and has to see what it skips
            # Paddle numbers an optimizer's tensors, made in its first step, through the whole process; counted afresh,
            # the state that resuming reads has the same names whatever was trained before in either process.
            with unique_name.guard():
                t.precision.step(t.optimizer)
            self.resumed = None
        t.optimizer.clear_grad()
        # The schedule goes by steps, whether they were taken or not.
        t.lr.step()
        if good:
            t.averaging.update()
