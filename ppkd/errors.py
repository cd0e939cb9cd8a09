"""The one exception for mistakes that a user can mend, and how to name what was probably meant."""

import difflib
import os

_MISTYPED = 0.8  # of `difflib`'s ratio; names that mean something else are less alike


class UserError(Exception):
    """Wrong input: a file, a key, a path, weights that do not fit. The message says what would be right."""


def nearest(name, known, count=3):
    """Return ``"; nearest: a, b"`` for the known names that look like `name`, or an empty string."""
    spellings = {}
    for known_name in known:
        spellings.setdefault(str(known_name).lower(), []).append(str(known_name))
    matches = difflib.get_close_matches(str(name).lower(), spellings, n=count, cutoff=0.5)
    return "; nearest: " + ", ".join([s for m in matches for s in spellings[m]][:count]) if matches else ""


def is_mistyped(name, known):
    """Whether `name` is so nearly one of the known names that it was meant to be it."""
    return bool(difflib.get_close_matches(str(name).lower(), [str(each).lower() for each in known], 1, _MISTYPED))


def whole(path):
    """`path`, and in brackets what it means if that depends on the folder that a command is called in."""
    return path if os.path.isabs(path) else f"{path} (that is {os.path.abspath(path)})"
