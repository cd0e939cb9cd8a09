"""Reads a method's parameters: known keys only, each with a type."""

from ppkd.errors import UserError, nearest
from ppkd.recipe.method import ENGINE_OPTIONS

NUMERICS = ("authors", "paddledet")


def read(method, defaults):
    """The method's parameters over `defaults`.

    Args:
        method: `recipe.MethodSpec`.
        defaults: key -> default value; a number, bool, text or mapping also fixes the type that is accepted, and a
            mapping the keys. None and lists accept anything.

    Raises:
        UserError: a key that the method does not have, or a value of the wrong type.
    """
    return overlay(defaults, method.params, method.name, method.file, options=ENGINE_OPTIONS)


def overlay(defaults, given, name, file, path="", options=()):
    """`given` over `defaults`, as `read` does it for the section `path` of method `name`.

    Keys of `options` are no parameters, but what a user may have meant.
    """
    values = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise UserError(
                f"{file}: {name} has no parameter {path + str(key)!r}{nearest(key, (*defaults, *options))}; "
                f"it has: {', '.join(path + known for known in sorted(defaults))}"
            )
        values[key] = _typed(key, value, defaults[key], name, file, path)
    return values


def _typed(key, value, default, name, file, path):
    if isinstance(default, dict):
        if not isinstance(value, dict):
            raise UserError(f"{file}: {path}{key} has to be a mapping of parameters, found {value!r}")
        return overlay(default, value, name, file, f"{path}{key}.")
    # bool first: Python counts it among the numbers.
    for kind, wanted in ((bool, "true or false"), ((int, float), "a number"), (str, "a name")):
        if isinstance(default, kind):
            if not isinstance(value, kind) or isinstance(value, bool) != isinstance(default, bool):
                raise UserError(f"{file}: {path}{key} has to be {wanted}, found {value!r}")
            break
    return value


def choice(method, key, value, choices):
    """`value` if it is one of `choices`.

    Raises:
        UserError: it is not; the message lists them.
    """
    if value not in choices:
        raise UserError(
            f"{method.file}: {key} has to be one of {', '.join(map(str, choices))}; found {value!r}"
            f"{nearest(str(value), choices)}"
        )
    return value


def as_paddledet(method):
    """Whether ``distill.numerics`` asks for PaddleDetection's own numbers in place of the authors'."""
    return choice(method, "distill.numerics", method.options.get("numerics", "authors"), NUMERICS) == "paddledet"
