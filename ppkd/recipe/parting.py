"""What the two parts of a step's gradient, the detection loss's and the distillation's, have each for itself."""

import re
from dataclasses import dataclass

from ppkd.errors import UserError
from ppkd.recipe.keys import is_number

CHOICES = ("together", "apart")
KEYS = ("clip", "moments", "update_share")
SHARE, MOST = 0.1, 10.0
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*$")


@dataclass(frozen=True)
class Parting:
    """Which of the two parts' ways are apart.

    Attributes:
        clip: whether each is clipped by its own norm.
        share: how long the distillation's part of the update is beside the detection loss's, where each has moments of
            its own; None if both have the same ones.
    """

    clip: bool = False
    share: float | None = None

    @property
    def any(self):
        """Whether anything is apart."""
        return self.clip or self.share is not None

    @property
    def keys(self):
        """As a file has it."""
        keys = {"clip": "apart"} if self.clip else {}
        return keys if self.share is None else keys | {"moments": "apart", "update_share": f"{100 * self.share:.12g}%"}


def parting_of(options, where):
    """The `Parting` of a ``distill:`` block.

    Args:
        options: mapping with ``clip``, ``moments`` (each ``together`` or ``apart``) and ``update_share`` (``10%`` or
            0.1), if it has them.
        where: file and mapping, for messages.

    Raises:
        UserError: a value of the wrong kind.
    """
    for key in ("clip", "moments"):
        if options.get(key, CHOICES[0]) not in CHOICES:
            raise UserError(f"{where}.{key} has to be one of {', '.join(CHOICES)}; found {options[key]!r}")
    clip, apart = (options.get(key) == "apart" for key in ("clip", "moments"))
    if not apart:
        if "update_share" in options:
            raise UserError(f"{where}.update_share needs {where.split(': ')[-1]}.moments: apart")
        return Parting(clip)
    given = options.get("update_share", SHARE)
    percent = _PERCENT.match(given) if isinstance(given, str) else None
    share = float(percent[1]) / 100 if percent else given
    if not is_number(share) or not 0 < share <= MOST:
        raise UserError(
            f"{where}.update_share has to be a share above 0 and up to {MOST:.0%} such as 10% or 0.1, found {given!r}"
        )
    return Parting(clip, float(share))
