"""Gives one module of ppdet another view of Paddle or numpy: a few functions of its own; nothing changes elsewhere."""

import importlib

import numpy as np
import paddle

# By what ppdet's modules call them.
_PACKAGES = {"paddle": paddle, "np": np}


def replace(module_name, package="paddle", /, **functions):
    """Let the module of that name find `functions` where it looks for functions of a package.

    Args:
        module_name: a module that does ``import paddle``, or ``import numpy as np``.
        package: ``paddle`` or ``np``.
        functions: name -> function. Applied again, the last one counts.
    """
    module = importlib.import_module(module_name)
    if not isinstance(getattr(module, package), View):
        setattr(module, package, View(_PACKAGES[package]))
    vars(getattr(module, package)).update(functions)


class View:
    """A package as one module sees it: what has been replaced there, and for the rest the package itself."""

    def __init__(self, package):
        self._package = package

    def __getattr__(self, name):
        return getattr(self._package, name)
