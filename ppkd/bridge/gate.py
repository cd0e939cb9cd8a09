"""A config names classes of ppdet; here it is decided which of them it gets.

ppdet looks names up in its registry, in what its packages `data.transform` and `data.source` happen to hold, in
Paddle's optimizers and in a module of schedules: `setup_logger` and `os` included. Each of these places is shown to it
with the classes of `judged` alone, so that no way of writing a name leads around them.
"""

import inspect
import sys

from ppkd.bridge import judged
from ppkd.errors import UserError

_allowed = set()
# Where classes come from that no user has put where a config finds them.
_THEIRS = frozenset(["ppdet", "paddle", "numpy", "scipy", "PIL", "cv2", "pycocotools"]) | sys.stdlib_module_names
# A name that no module has, by which `compat.named_classes` finds out whether ppdet asks a `Namespace`.
ABSENT = "NoClassOfThisName"
_MODULES = judged.DATASETS | judged.TRANSFORMS | judged.SCHEDULES | judged.MODULES


def allow(names):
    """Let configs name these classes too: what ``--allow-classes`` says, for this process."""
    _allowed.update(names)


def check(name, value=None, where="", known=_MODULES):
    """Refuse a class that a config may not name.

    Args:
        name: as the config has it.
        value: what is found under this name; None if that does not matter.
        where: key or ``file:line``, for the message.
        known: the names that are judged, in this place.

    Raises:
        UserError: with the reason and the option that allows it.
    """
    if admits(name, value, known):
        return
    reason = judged.REFUSED.get(name) or "nobody has judged yet what it does when it is built"
    if value is not None and not inspect.isclass(value) and name not in judged.REFUSED:
        raise UserError(f"{where}{': ' if where else ''}{name} is no class that a config may name here")
    raise UserError(
        f"{where}{': ' if where else ''}a config may not name {name}: {reason}. If you trust the config, allow it with "
        f"--allow-classes {name} (docs/security.md)"
    )


def admits(name, value=None, known=_MODULES):
    """Whether a config may name it: judged in this place, allowed by the user, or brought by ppkd or the user."""
    if value is not None and _is_of_the_user(value):
        return True
    return name in known or (name in _allowed and (value is None or inspect.isclass(value)))


def _is_of_the_user(value):
    return inspect.isclass(value) and value.__module__.partition(".")[0] not in _THEIRS


class Asked(Exception):
    """A `Namespace` was asked for `ABSENT`."""


class Namespace:
    """A module as a config's names find it: the classes that `check` lets through, and nothing else.

    Not its own parts either: ``__init__`` is a name like any other, and would take another list from the config.

    Args:
        module: where names are looked up.
        known: the judged ones.
        where: the key in which such names stand.
    """

    def __init__(self, module, known, where):
        vars_of(self).update(module=module, known=known, where=where)

    def __getattribute__(self, name):
        if name.startswith(ABSENT):
            raise Asked
        own = vars_of(self)
        value = getattr(own["module"], name)
        check(name, value, own["where"], own["known"])
        return value


def vars_of(namespace):
    """What a `Namespace` was made of, for ppkd: ``module``, ``known`` and ``where``."""
    return object.__getattribute__(namespace, "__dict__")
