"""How strong a term is over time: a factor on its weight, evaluated once an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Factor 1 from epoch `start` until before epoch `stop`, 0 otherwise.

    Args:
        start: first epoch (from 0) in which the term is on.
        stop: first epoch in which it is off again, or None for never.
    """

    start: int = 0
    stop: int | None = None

    def factor(self, epoch):
        """The factor in `epoch` (from 0)."""
        return 1.0 if epoch >= self.start and (self.stop is None or epoch < self.stop) else 0.0
