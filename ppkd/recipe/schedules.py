"""How strong a term is over time: a factor on its weight, evaluated once an epoch."""

import math
from dataclasses import dataclass

DECAYS = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """From 0 up over `warmup` epochs, then from 1 to `final` over the rest, and 0 outside of `start` to `stop`.

    Args:
        start: first epoch (from 0) in which the term is on.
        stop: first epoch in which it is off again, or None for never.
        decay: one of `DECAYS`. DAMO-YOLO decays by a cosine to 0.1, YOLOv6 to 0.01.
        final: the factor in the last epoch of a decay.
        warmup: epochs over which the factor rises linearly; the first has 1 / (warmup + 1).
        epochs: epochs of the run, where a decay without `stop` ends.
        auto: whether the term also ends when it has stopped helping (see `entering.LettingGo`).
    """

    start: int = 0
    stop: int | None = None
    decay: str = "constant"
    final: float = 1.0
    warmup: int = 0
    epochs: int | None = None
    auto: bool = False

    def factor(self, epoch):
        """The factor in `epoch` (from 0)."""
        if epoch < self.start or self.over(epoch):
            return 0.0
        since = epoch - self.start
        if since < self.warmup:
            return (since + 1) / (self.warmup + 1)
        if self.decay == "constant":
            return 1.0
        end = self.stop if self.stop is not None else self.epochs
        steps = (end or epoch + 1) - self.start - self.warmup - 1
        share = min((since - self.warmup) / steps, 1.0) if steps > 0 else 0.0
        if self.decay == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return 1.0 + (self.final - 1.0) * share

    def turns(self, epoch, part=lambda epoch: 1.0):
        """Whether the factor changes by much as `epoch` begins: by half of its most, or down to 0 for good.

        Args:
            epoch: from 0.
            part: function from an epoch to what it is multiplied by, 1 at most.
        """
        if epoch < 1:
            return False
        ends = self.over(epoch) and not self.over(epoch - 1)
        now, before = (self.factor(each) * part(each) for each in (epoch, epoch - 1))
        return ends or abs(now - before) >= 0.5

    def over(self, epoch):
        """Whether the factor is 0 from `epoch` on, for good."""
        return self.stop is not None and epoch >= self.stop
