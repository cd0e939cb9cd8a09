"""Makes the loss that a term names, and checks what it is given and what it asks for."""

import inspect

from ppkd.detectors.context import Context
from ppkd.engine.sides import OF_LOSS
from ppkd.errors import UserError, nearest
from ppkd.losses import LOSSES
from ppkd.recipe.keys import is_number


def check_loss(given, where):
    """Refuse a loss that does not exist, and parameters that it does not have or lacks.

    Args:
        given: a name, or ``{"name": ..., parameters}``.
        where: for messages.

    Returns:
        The same as a mapping.

    Raises:
        UserError: see above.
    """
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise UserError(f"{where}: a loss is a name or {{name: ..., parameters}}, found {given!r}")
    name = given["name"]
    if name not in LOSSES:
        raise UserError(f"{where}: unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(sorted(LOSSES))}")
    own = own_parameters(name)
    for key in given:
        if key != "name" and key not in own:
            has = f"it has: {', '.join(own)}" if own else "it has none"
            raise UserError(f"{where}: loss {name} has no parameter {key!r}{nearest(str(key), own)}; {has}")
    lacking = [k for k, p in own.items() if p.default is p.empty and k not in given]
    if lacking:
        raise UserError(f"{where}: loss {name} needs {', '.join(lacking)}: write {{name: {name}, {lacking[0]}: ...}}")
    return given


def own_parameters(name):
    """The parameters of a loss that a file may set: name -> `inspect.Parameter`."""
    parameters = inspect.signature(LOSSES[name]).parameters
    skipped = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {k: p for k, p in parameters.items() if k not in OF_LOSS and p.kind not in skipped}


def build_loss(given, sides, where):
    """Build the layer.

    Args:
        given: as for `check_loss`.
        sides: `sides.Sides`, with what connectors make of them.
        where: for messages.

    Raises:
        UserError: as `check_loss`, or a value that the loss refuses.
    """
    given = check_loss(given, where)
    kind = LOSSES[given["name"]]
    params = {k: v for k, v in given.items() if k != "name"}
    _check_numbers(kind, params, f"{where}: loss {given['name']}")
    try:
        return kind(**sides.of_loss(kind), **params)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: loss {given['name']}: {error}") from error


def _check_numbers(kind, params, begin):
    """Refuse what is no number where one is by default, which Paddle may compute with and tell nobody; of a loss of
    ppkd's, for a plugin's may take more."""
    own = inspect.signature(kind).parameters if kind.__module__.startswith("ppkd.") else {}
    for name, value in params.items():
        if isinstance(getattr(own.get(name), "default", None), float) and not is_number(value):
            raise UserError(f"{begin}: {name} is {value!r}, expected a number")


def context_names(loss, name=None):
    """Names of the context inputs that a loss declares in its ``forward``.

    Args:
        loss: the layer.
        name: what the recipe calls it.

    Raises:
        UserError: it does not take a student's and a teacher's tensor, or asks for something that no context has.
    """
    name = name or type(loss).__name__
    parameters = list(inspect.signature(loss.forward).parameters.items())
    if len(parameters) < 2:
        raise UserError(
            f"loss {name}: its forward takes ({', '.join(n for n, _ in parameters)}); it has to take the student's and "
            "the teacher's tensor: forward(self, student, teacher)"
        )
    names = []
    for wanted, parameter in parameters[2:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if wanted in Context.NAMES:
            names.append(wanted)
        elif parameter.default is parameter.empty:
            raise UserError(f"loss {name} asks for {wanted!r}; a loss can ask for {', '.join(Context.NAMES)}")
    return tuple(names)
