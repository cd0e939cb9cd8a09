"""Reads a method's parameters: known keys only, each with a type."""

from ppkd.errors import UserError, nearest


def read(method, defaults):
    """The method's parameters over `defaults`.

    Args:
        method: `recipe.MethodSpec`.
        defaults: key -> default value; a number or bool also fixes the type that is accepted.

    Raises:
        UserError: a key that the method does not have, or a value of the wrong type.
    """
    values = dict(defaults)
    for key, value in method.params.items():
        if key not in defaults:
            raise UserError(
                f"{method.file}: {method.name} has no parameter {key!r}{nearest(key, defaults)}; "
                f"it has: {', '.join(sorted(defaults))}"
            )
        values[key] = _typed(key, value, defaults[key], method.file)
    return values


def _typed(key, value, default, file):
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{file}: {key} has to be true or false, found {value!r}")
    elif isinstance(default, (int, float)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{file}: {key} has to be a number, found {value!r}")
    return value
