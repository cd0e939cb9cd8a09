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
    # bool first: Python counts it among the numbers.
    for kind, wanted in ((bool, "true or false"), ((int, float), "a number")):
        if isinstance(default, kind):
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
                raise UserError(f"{file}: {key} has to be {wanted}, found {value!r}")
            break
    return value
