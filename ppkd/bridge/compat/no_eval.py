"""ppdet evaluates texts of its config files as Python."""

import functools
import inspect
import re

from paddle import nn

from ppkd.bridge.compat import own_builtins
from ppkd.errors import UserError

_OF_MODELS = ("paddle.nn.functional.", "ppdet.modeling.", "ppdet.optimizer.")
_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")


def look_names_up():
    """Let ``eval`` in ppdet's modules do what it is there for, to find a part of a model by its name, and nothing else.

    ``stage_fn: __import__("os").system("...")`` of a ``CustomCSPPAN`` would run the command. What PaddleDetection adds
    in later versions does the same (``vit_mae``, ``hgnet_v2``), so it goes for every module of ppdet: those that are
    there, and those that are imported later, before their first line.

    Needed for: paddledet 2.6.0.
    """
    own_builtins.give("eval", lambda module: functools.partial(_named, module))
    own_builtins.give("exec", lambda module: functools.partial(_refuse, module))


def _refuse(module, *args, **kwargs):
    raise UserError(f"{module.__name__} would run a text as code; it is not run")


def _named(module, text, *scopes):
    value = None
    if isinstance(text, str) and _NAME.fullmatch(text):
        first, *rest = text.split(".")
        value = functools.reduce(lambda found, part: getattr(found, part, None), rest, vars(module).get(first))
    if not _is_of_models(value):
        raise UserError(f"{text!r} is no name of a part of a model in {module.__name__}; it is not evaluated")
    return value


def _is_of_models(value):
    """Whether it is a layer, or a function that makes or is one: `paddle.jit.load` unpickles, `paddle.save` writes."""
    if inspect.isclass(value):
        return issubclass(value, nn.Layer)
    return inspect.isfunction(value) and value.__module__.startswith(_OF_MODELS)
