"""How large a term is to be, as a user writes it."""

import re
from dataclasses import dataclass, replace

from ppkd.recipe.keys import is_number

STEPS = 50
_SHARE = re.compile(r"^\s*((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*%(\s+of\s+gradient(\s+every\s+epoch)?)?\s*$")


@dataclass(frozen=True)
class Target:
    """How large a term is to be on the average of its first steps.

    Attributes:
        value: of the weighted term, all its levels and parts together; a share of the student's own loss if `relative`.
        relative: whether `value` is such a share.
        steps: how many steps the average is taken over; then the factor stays as it is.
        gradient: whether it is a share of the detection loss's gradient instead, where the term enters the student.
        every_epoch: whether that goes on being measured, as epochs begin.
        later: pairs of an epoch (from 1) and the value from it on, in place of `value`; what is measured is the same.
    """

    value: float
    relative: bool = False
    steps: int = STEPS
    gradient: bool = False
    every_epoch: bool = False
    later: tuple = ()

    @classmethod
    def parse(cls, text, steps=STEPS):
        """Read ``0.5``, ``20%``, ``10% of gradient`` or ``10% of gradient every epoch``.

        Raises:
            ValueError: it is neither, or not above 0.
        """
        gradient = every_epoch = False
        if isinstance(text, str) and (match := _SHARE.match(text)):
            value, relative = float(match[1]) / 100, True
            gradient, every_epoch = bool(match[2]), bool(match[3])
        elif is_number(text):
            value, relative = float(text), False
        else:
            raise ValueError(f"{text!r} is neither a number nor a share such as 20% or 10% of gradient")
        if not is_number(value) or value <= 0:
            raise ValueError(f"{text!r} is not above 0")
        return cls(value, relative, steps, gradient, every_epoch)

    @classmethod
    def parse_later(cls, given, steps=STEPS):
        """Read what `parse` does of every epoch from which on it goes: ``{0: 11% of gradient, 68: 5% of gradient}``.

        Args:
            given: mapping from an epoch to text, 0 among them.
            steps: as for `parse`.

        Raises:
            ValueError: as `parse`, or they are not of one kind, or the first epoch is not 0.
        """
        found = [(epoch, cls.parse(given[epoch], steps)) for epoch in sorted(given)]
        if not found or found[0][0] != 0:
            raise ValueError(f"{given!r} does not say what goes from epoch 0 on")
        first = found[0][1]
        if any(replace(target, value=first.value) != first for _, target in found):
            raise ValueError(f"{given!r} are not of one kind: values, shares of the loss, or of its gradient alike")
        return replace(first, later=tuple((epoch, target.value) for epoch, target in found[1:]))

    def times(self, epoch):
        """What `value` is multiplied by in an epoch (from 0)."""
        values = [value for begin, value in self.later if begin <= epoch]
        return values[-1] / self.value if values else 1.0

    def part(self, epoch):
        """What `value` is in an epoch (from 0), over the highest that it ever is."""
        return self.times(epoch) * self.value / max([self.value, *(value for _, value in self.later)])

    @property
    def text(self):
        """What `parse`, or `parse_later`, reads."""
        texts = {0: self._text(self.value)} | {epoch: self._text(value) for epoch, value in self.later}
        return texts if self.later else texts[0]

    def _text(self, value):
        if not self.relative:
            return value
        of = " of gradient" * self.gradient + " every epoch" * self.every_epoch
        return f"{100 * value:.12g}%{of}"

    def __str__(self):
        later = "".join(f", from epoch {epoch + 1} on to {self._text(value)}" for epoch, value in self.later)
        return f"{self._text(self.value)}{later}"
