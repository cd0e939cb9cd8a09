"""ppdet evaluates texts of its config files as Python."""

import functools
import inspect
import re
import sys

from paddle import nn

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
    for name, module in list(sys.modules.items()):
        if _of_ppdet(name) and module is not None:
            _replace(module)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _of_ppdet(name):
    return name == "ppdet" or name.startswith("ppdet.")


def _replace(module):
    """A function finds these names among its module's before Python's own."""
    module.eval = functools.partial(_named, module)
    module.exec = functools.partial(_refuse, module)


class _Finder:
    """Finds ppdet's modules as the finders behind it do, for a loader that gives each its `eval` first."""

    def find_spec(self, name, path=None, target=None):
        if not _of_ppdet(name):
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        found = (finder.find_spec(name, path, target) for finder in behind if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader.exec_module = functools.partial(_load, spec.loader.exec_module)
        return spec


def _load(load, module):
    _replace(module)
    load(module)


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
