"""Gives the modules of ppdet functions of ours in the place of Python's own."""

import functools
import sys

_makers = {}


def give(name, make):
    """Let every module of ppdet find `make(module)` under the name of one of Python's own functions.

    A function finds it among its module's names, before Python's. It goes for the modules that are there, and for
    those that are imported later, before their first line.

    Args:
        name: ``eval``, ``open`` and the like.
        make: takes the module.
    """
    _makers[name] = make
    for module_name, module in list(sys.modules.items()):
        if _of_ppdet(module_name) and module is not None:
            setattr(module, name, make(module))
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _of_ppdet(name):
    return name == "ppdet" or name.startswith("ppdet.")


class _Finder:
    """Finds ppdet's modules as the finders behind it do, for a loader that gives each its own functions first."""

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
    for name, make in _makers.items():
        setattr(module, name, make(module))
    load(module)
