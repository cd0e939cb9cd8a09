"""``distill.bank``: in how many views an image is seen, and where what teachers say of them is kept."""

import math
from dataclasses import dataclass

from ppkd.errors import UserError, nearest

KEY = "bank"
DTYPES, ON_FAILURE = ("float16", "bfloat16"), ("stop", "live")


@dataclass(frozen=True)
class BankSpec:
    """What a file says about the bank.

    Attributes:
        views: augmented views of each image; epoch E sees view ``E % views``.
        folder: where it is kept, or None for ``bank`` in the run's output folder.
        dtype: in which values are kept, one of `DTYPES`.
        on_failure: what is done when it cannot be used or filled: ``stop``, or go on with the ``live`` teacher.
        gigabytes: what it may take of the disk at most, or None.
    """

    views: int
    folder: str | None = None
    dtype: str = DTYPES[0]
    on_failure: str = ON_FAILURE[0]
    gigabytes: float | None = None

    @property
    def keys(self):
        """As a file has it; keys that have their default value are left out."""
        usual = BankSpec(self.views)
        keys = {name: getattr(self, name) for name in _KEYS if getattr(self, name) != getattr(usual, name)}
        return {"views": self.views, **keys}


_KEYS = tuple(BankSpec.__dataclass_fields__)


def bank_of(options, where):
    """The `BankSpec` of a ``distill:`` block, or None.

    Args:
        options: mapping, with the key ``bank`` if there is to be one.
        where: file and mapping, for messages.

    Raises:
        UserError: an unknown key, or a value of the wrong kind.
    """
    given, where = options.get(KEY), f"{where}.{KEY}"
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError(f"{where} has to be a mapping like {{views: 8}}, found {given!r}")
    for key in given:
        if key not in _KEYS:
            raise UserError(f"{where} has no key {key!r}{nearest(str(key), _KEYS)}; it has {', '.join(_KEYS)}")
    views, folder = given.get("views"), given.get("folder")
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise UserError(f"{where}.views has to be a number of views from 1, such as 8; found {views!r}")
    if folder is not None and (not isinstance(folder, str) or not folder.strip()):
        raise UserError(f"{where}.folder has to be the path of a folder, found {folder!r}")
    for key, known in (("dtype", DTYPES), ("on_failure", ON_FAILURE)):
        if given.get(key, known[0]) not in known:
            raise UserError(f"{where}.{key} has to be one of {', '.join(known)}; found {given[key]!r}")
    most = given.get("gigabytes")
    if most is not None and (isinstance(most, bool) or not isinstance(most, (int, float)) or not 0 < most < math.inf):
        raise UserError(f"{where}.gigabytes has to be a number above 0, such as 10; found {most!r}")
    return BankSpec(**given)
