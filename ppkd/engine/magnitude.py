"""Brings a term to a wanted size in a run's first steps, so that nobody has to guess a loss factor."""

import paddle
from paddle import nn

from ppkd.losses.ranks import averaged


class Magnitude(nn.Layer):
    """The factor that brings a term to its `targets.Target`.

    In each of the first steps it is the target over the mean of the term so far, so the very first step has the target
    itself; afterwards it stays. Steps in which the term is zero or not finite do not count. Under several ranks it is
    the mean over the ranks, so that it is the same on all.

    A target of gradients is measured in some steps only (see `due`), as norms in place of losses; steps in which the
    detection loss has none do not count (where a head's last weights start at zero, that is the very first), and until
    one has counted, a share of nothing is nothing. With ``every_epoch`` it goes on being measured: what counts is then
    half the last and half what was there before.

    Args:
        target: `targets.Target`.
    """

    def __init__(self, target):
        super().__init__()
        self.target = target
        # Sums of the term and of what it is measured against, and how many steps they are of. All in the resume state.
        self.register_buffer("sums", paddle.zeros([2]))
        self.register_buffer("count", paddle.zeros([1], dtype="int32"))
        # Once it stays as it is nothing is exchanged any more. To know that, the host has to look, rarely.
        self._frozen, self._look_at = False, target.steps

    def due(self, age):
        """Whether gradients are to be measured `age` steps after the term began: after 0, 1, 3, 7, ... of the first."""
        return self.target.gradient and age < self.target.steps and age & (age + 1) == 0

    def frozen(self, age):
        """Whether the factor stays as it is from now on, whatever the term is.

        It is the same on all ranks, for the counts are. The host waits for the device when `age` reaches the target's
        number of steps, and then, since steps may not have counted, each time that it has doubled.

        Args:
            age: steps since the term began.
        """
        if not self._frozen and not self.target.gradient and age >= self._look_at:
            self._frozen, self._look_at = int(self.count) >= self.target.steps, 2 * age
        return self._frozen

    def forward(self, value, own):
        """The factor for this step, which is counted.

        Args:
            value: the term before any weight, a scalar.
            own: the student's own loss, a scalar.

        Returns:
            A scalar without gradient.
        """
        with paddle.no_grad():
            reference = own.detach() if self.target.relative else paddle.ones_like(own)
            values = (x.astype("float32").reshape([]).abs() for x in (value.detach(), reference))
            seen = averaged(paddle.stack([*values]))
            self._count(seen, self.count[0] < self.target.steps)
            return self.factor()

    def look(self, entering, age):
        """Count the two norms of an `entering.Entering`, `age` steps after the term began."""
        with paddle.no_grad():
            seen = paddle.stack([x.astype("float32").reshape([]) for x in (entering.term, entering.own)])
            first = age < self.target.steps
            if self.target.every_epoch and not first:
                # No sum over the whole run: what was measured long ago is forgotten.
                mean = self.sums / self.count.astype("float32").clip(min=1)
                known = self._says_something(seen)
                paddle.assign(paddle.where(known, mean, self.sums), self.sums)
                paddle.assign(paddle.where(known, self.count.clip(max=1), self.count), self.count)
                self._count(seen, known)
            else:
                self._count(seen, (self.count[0] == 0).logical_or(paddle.full([], first, "bool")))

    def stand_in(self):
        """Be 1 until something is measured, if it is a share of gradients and nothing has been."""
        if self.target.gradient and not int(self.count):
            with paddle.no_grad():
                paddle.assign(paddle.to_tensor([self.target.value, 1.0]), self.sums)

    def factor(self):
        """What brings the mean so far to the target; if nothing has counted yet, 1, and 0 for a share of gradients."""
        with paddle.no_grad():
            mean, reference = self.sums.unbind()
            factor = self.target.value * reference / paddle.where(mean > 0, mean, paddle.ones_like(mean))
            return paddle.where(mean > 0, factor, paddle.full_like(mean, 0.0 if self.target.gradient else 1.0))

    def _count(self, seen, wanted):
        # No look at any of these values: the host would wait for the device.
        counts = self._says_something(seen).logical_and(wanted)
        paddle.assign(self.sums + paddle.where(counts, seen, paddle.zeros_like(seen)), self.sums)
        paddle.assign(self.count + counts.astype("int32"), self.count)

    def _says_something(self, seen):
        return paddle.isfinite(seen).all().logical_and((seen.min() if self.target.gradient else seen[0]) > 0)
