"""Does something around and right after the import of a package, whoever imports it."""

import contextlib
import importlib.util
import sys


def after_import(name, action, around=contextlib.nullcontext):
    """Call `action()` once the top-level package `name` has been imported; at once if it has been already.

    A package that is not installed, or whose import fails, calls nothing.

    Args:
        around: makes a context manager, inside of which the package's own code runs.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action, around))


class _Finder:
    """Finds one package as the finders behind it do, with a loader that calls `action` after the package's own code."""

    def __init__(self, name, action, around):
        self._name, self._action, self._around = name, action, around

    def find_spec(self, name, path=None, target=None):
        if name != self._name or self not in sys.meta_path:
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)  # or it would find itself
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(place, self)
        if spec is not None and spec.loader is not None:
            self._extend(spec.loader)
        return spec

    def _extend(self, loader):
        load = loader.exec_module

        def exec_module(module):
            with self._around():
                load(module)
            sys.meta_path.remove(self)
            self._action()

        loader.exec_module = exec_module
