"""How large a term is to be, as a user writes it."""

import re
from dataclasses import dataclass

STEPS = 50
_SHARE = re.compile(r"^\s*((\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?)\s*%\s*$")


@dataclass(frozen=True)
class Target:
    """How large a term is to be on the average of its first steps.

    Attributes:
        value: of the weighted term, all its levels and parts together; a share of the student's own loss if `relative`.
        relative: whether `value` is such a share.
        steps: how many steps the average is taken over; then the factor stays as it is.
    """

    value: float
    relative: bool = False
    steps: int = STEPS

    @classmethod
    def parse(cls, text, steps=STEPS):
        """Read ``0.5`` or ``20%``.

        Raises:
            ValueError: it is neither, or not above 0.
        """
        if isinstance(text, str) and (match := _SHARE.match(text)):
            value, relative = float(match[1]) / 100, True
        elif isinstance(text, (int, float)) and not isinstance(text, bool):
            value, relative = float(text), False
        else:
            raise ValueError(f"{text!r} is neither a number nor a share such as 20%")
        if not 0 < value < float("inf"):
            raise ValueError(f"{text!r} is not above 0")
        return cls(value, relative, steps)

    @property
    def text(self):
        """What `parse` reads."""
        return f"{100 * self.value:.12g}%" if self.relative else self.value
