"""Where a run stands, in plain values."""

from dataclasses import dataclass, fields

# Steps between two measurements of gradients, at least: they take a part of a step's time.
WATCH = 150


@dataclass
class Standing:
    """Where a run stands. The fields without a default are of the run; the others are its state.

    Attributes:
        batches: of an epoch.
        accumulate: batches of a step of the optimizer.
        epoch: epochs that are complete.
        batch: batches of the epoch after these that are done.
        step: steps of the optimizer that are done.
        best: the best score of an evaluation.
        to_evaluate: name of the snapshot that is written and not evaluated yet, or None.
    """

    batches: int
    accumulate: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = -1.0
    to_evaluate: str | None = None

    @property
    def steps(self):
        """Steps of an epoch."""
        return -(-self.batches // self.accumulate)

    @property
    def place(self):
        """Epoch, batch and step of the batch that is next, or being done; all from 0."""
        return self.epoch, self.batch, self.step

    @property
    def begins_step(self):
        """Whether a step of the optimizer begins with this batch."""
        return self.batch % self.accumulate == 0

    @property
    def ends_step(self):
        """Whether a step of the optimizer ends with this batch."""
        return (self.batch + 1) % self.accumulate == 0 or self.batch + 1 == self.batches

    @property
    def watched(self):
        """Whether gradients are measured with the step of this batch: the first of a run, and then of epochs that lie
        `WATCH` steps or more apart, which does not depend on where a run was resumed."""
        apart = -(-WATCH // self.steps)
        return self.batch < self.accumulate and self.epoch % apart == 0

    @property
    def parts(self):
        """Batches of the step that this batch is of: the last step of an epoch may have fewer."""
        return min(self.accumulate, self.batches - self.batch + self.batch % self.accumulate)

    @property
    def steps_of_epoch(self):
        """Steps of the epoch that are begun."""
        return -(-self.batch // self.accumulate)

    def advance(self):
        """The batch is done."""
        self.step += self.ends_step
        self.batch += 1

    def end_epoch(self):
        """All batches of the epoch are done."""
        self.epoch, self.batch = self.epoch + 1, 0

    def state(self):
        """What resuming needs, flat."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state):
        """Go on as `state`, which may hold more, was."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = tuple(f.name for f in fields(Standing) if f.name not in ("batches", "accumulate"))
