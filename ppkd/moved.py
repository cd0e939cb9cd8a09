"""Modules that stood directly in `ppkd` and moved into a wing are still found under their former name.

People's scripts, and the snippets of earlier documentation, import ``ppkd.reproduce`` or ``ppkd.tensor_files``. The
module is the same object under both names; a `DeprecationWarning` says the new one.
"""

import importlib
import importlib.util
import pathlib
import sys
import types
import warnings

# Former names that several wings have today: the wing of the one that is meant.
_SEVERAL = {"cost": "study", "sizes": "engine", "step": "training", "weights": "bridge"}
_HERE = pathlib.Path(__file__).parent


class _Finder:
    """Asked last: only for names that nothing else finds."""

    def find_spec(self, name, path=None, target=None):
        package, _, module = name.rpartition(".")
        wing = _SEVERAL.get(module, "*")
        found = sorted(_HERE.glob(f"{wing}/{module}.py")) if package == "ppkd" and module.isidentifier() else []
        if len(found) != 1:
            return None
        spec = importlib.util.spec_from_loader(name, self)
        spec.loader_state = f"ppkd.{found[0].parent.name}.{module}"
        return spec

    def create_module(self, spec):
        warnings.warn(f"{spec.name} is {spec.loader_state} now", DeprecationWarning, stacklevel=2)
        return None

    def exec_module(self, module):
        found = importlib.import_module(module.__spec__.loader_state)
        if module.__name__.rpartition(".")[2] in sys.modules["ppkd"].__all__:
            found.__class__ = _Callable  # the import system puts it where the function of this name was
        # The import system hands out what stands in sys.modules in the end.
        sys.modules[module.__name__] = found


class _Callable(types.ModuleType):
    """A module that has the name of a function of `api`, and does what that does where it is called."""

    def __call__(self, *args, **kwargs):
        return sys.modules["ppkd"].__getattr__(self.__name__.rpartition(".")[2])(*args, **kwargs)


def find_moved_modules():
    """Let former names be imported; to be called once."""
    sys.meta_path.append(_Finder())
