"""ppdet evaluates texts of its config files as Python."""

import functools
import importlib
import inspect
import re

from ppkd.errors import UserError

_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
# Every module of ppdet 2.6.0 in which a value of a config reaches `eval`.
MODULES = (
    "ppdet.modeling.backbones.trans_encoder",
    "ppdet.modeling.backbones.vision_transformer",
    "ppdet.modeling.necks.custom_pan",
    "ppdet.modeling.reid.pyramidal_embedding",
    "ppdet.modeling.reid.resnet_embedding",
    "ppdet.optimizer.adamw",
)


def look_names_up():
    """Let ``eval`` in ppdet's modules do what it is there for, to find a class by its name, and nothing else.

    ``stage_fn: __import__("os").system("...")`` of a ``CustomCSPPAN`` would run the command.

    Needed for: paddledet 2.6.0.
    """
    for name in MODULES:
        module = importlib.import_module(name)
        module.eval = functools.partial(_named, module)


def _named(module, text):
    value = None
    if isinstance(text, str) and _NAME.fullmatch(text):
        first, *rest = text.split(".")
        value = functools.reduce(lambda found, part: getattr(found, part, None), rest, vars(module).get(first))
    ours = inspect.isfunction(value) or inspect.isclass(value)
    if not ours or value.__module__.split(".")[0] not in ("ppdet", "paddle"):
        raise UserError(f"{text!r} is no name of a class or function in {module.__name__}; it is not evaluated")
    return value
