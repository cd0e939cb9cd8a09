"""What the commands do, given their parsed arguments: a function a command, named as in `cli.COMMANDS`.

Each is imported when it is asked for: ``ppkd configs`` runs where neither Paddle nor numpy is.
"""

import importlib

_MODULES = {
    "around": ("configs", "data", "demo", "hosts"),
    "labelling": ("label",),
    "learning": ("bank", "doctor", "explain", "layers", "train"),
    "studying": ("compare", "report"),
    "using": ("evaluate", "export", "infer"),
    "weights": ("convert", "halve"),
    "whole": ("distill", "init"),
}
__all__ = sorted(sum(_MODULES.values(), ()))


def __getattr__(name):
    for module, functions in _MODULES.items():
        if name in functions:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
