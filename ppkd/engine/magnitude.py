"""Brings a term to a wanted size in a run's first steps, so that nobody has to guess a loss factor."""

import paddle
from paddle import nn

from ppkd.losses.ranks import averaged


class Magnitude(nn.Layer):
    """The factor that brings a term to its `targets.Target`.

    In each of the first steps it is the target over the mean of the term so far, so the very first step has the target
    itself; afterwards it stays. Steps in which the term is zero or not finite do not count. Under several ranks it is
    the mean over the ranks, so that it is the same on all.

    Args:
        target: `targets.Target`.
    """

    def __init__(self, target):
        super().__init__()
        self.target = target
        # Sums of the term and of what it is measured against, and how many steps they are of. All in the resume state.
        self.register_buffer("sums", paddle.zeros([2]))
        self.register_buffer("count", paddle.zeros([1], dtype="int32"))

    def forward(self, value, own):
        """The factor for this step.

        Args:
            value: the term before any weight, a scalar.
            own: the student's own loss, a scalar.

        Returns:
            A scalar without gradient.
        """
        with paddle.no_grad():
            self._count(value.detach(), own.detach())
            mean, reference = self.sums.unbind()
            factor = self.target.value * reference / paddle.where(mean > 0, mean, paddle.ones_like(mean))
            return paddle.where(mean > 0, factor, paddle.ones_like(mean))

    def _count(self, value, own):
        reference = own if self.target.relative else paddle.ones_like(own)
        seen = averaged(paddle.stack([x.astype("float32").reshape([]).abs() for x in (value, reference)]))
        # No look at any of these values: the host would wait for the device.
        counts = paddle.isfinite(seen).all().logical_and(seen[0] > 0).logical_and(self.count[0] < self.target.steps)
        paddle.assign(self.sums + paddle.where(counts, seen, paddle.zeros_like(seen)), self.sums)
        paddle.assign(self.count + counts.astype("int32"), self.count)
