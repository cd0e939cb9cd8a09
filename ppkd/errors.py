"""The one exception for mistakes that a user can mend, and how to name what was probably meant."""

import difflib


class UserError(Exception):
    """Wrong input: a file, a key, a path, weights that do not fit. The message says what would be right."""


def nearest(name, known, count=3):
    """Return ``"; nearest: a, b"`` for the known names that look like `name`, or an empty string."""
    lowered = {str(k).lower(): str(k) for k in known}
    matches = difflib.get_close_matches(str(name).lower(), lowered, n=count, cutoff=0.5)
    return "; nearest: " + ", ".join(lowered[m] for m in matches) if matches else ""
