"""How large a term is to be, as a user writes it."""

import re
from dataclasses import dataclass

from ppkd.recipe.keys import is_number

STEPS = 50
_SHARE = re.compile(
    r"^\s*((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*%(\s+of\s+gradient(\s+every\s+epoch)?)?\s*$"
)


@dataclass(frozen=True)
class Target:
    """How large a term is to be on the average of its first steps.

    Attributes:
        value: of the weighted term, all its levels and parts together; a share of the student's own loss if `relative`.
        relative: whether `value` is such a share.
        steps: how many steps the average is taken over; then the factor stays as it is.
        gradient: whether it is a share of the detection loss's gradient instead, where the term enters the student.
        every_epoch: whether that goes on being measured, as epochs begin.
    """

    value: float
    relative: bool = False
    steps: int = STEPS
    gradient: bool = False
    every_epoch: bool = False

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

    @property
    def text(self):
        """What `parse` reads."""
        if not self.relative:
            return self.value
        of = " of gradient" * self.gradient + " every epoch" * self.every_epoch
        return f"{100 * self.value:.12g}%{of}"
