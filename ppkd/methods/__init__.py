"""Methods: PaddleDetection's slim keys, translated once into terms. Nothing behind this knows the old keys."""

from ppkd.errors import UserError, nearest
from ppkd.methods import fgd

_METHODS = {"FGD": fgd.plan}


def plan(method):
    """Translate a slim file's method into a `terms.Plan`.

    Args:
        method: `recipe.MethodSpec`.

    Raises:
        UserError: unknown method or parameter, with the nearest that exist.
    """
    if method.name not in _METHODS:
        raise UserError(
            f"{method.file}: slim_method: {method.name!r} is no distillation method of ppkd"
            f"{nearest(method.name, _METHODS)}; known: {', '.join(sorted(_METHODS))}"
        )
    return _METHODS[method.name](method)
