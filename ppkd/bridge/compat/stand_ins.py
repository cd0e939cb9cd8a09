"""Packages that ppdet imports for one transform or tool of its own, and that a host need not have."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types

from ppkd.bridge import pip
from ppkd.errors import UserError

# Package -> what of ppdet uses it.
PACKAGES = {
    "imgaug": "the transforms of CULane's lanes (with numpy below 2: imgaug 0.4.0 is its last)",
    "pkg_resources": "the list of names of ppdet's model zoo",
    "sklearn": "tracking by CenterTrack",
}
# Those in whose place one stood when ppdet was imported -> why it could not be imported itself.
MISSING = {}


class StandIns:
    """While ppdet is being imported, gives it modules in which every name is a class that cannot be used.

    PaddleDetection's clones import imgaug, which few have; the wheel asks for the empty package ``sklearn`` and imports
    scikit-learn; ``pkg_resources`` has left setuptools. Only what cannot be imported is stood in for, and only for
    ppdet: other packages that look whether one is there go on finding that it is not. (numba, lap and motmetrics, which
    it imports too, it does without by itself.)
    """

    def __enter__(self):
        self._reasons = {}
        for name in PACKAGES:
            if reason := _why_not(name):
                self._reasons[name] = reason
                for made in [each for each in sys.modules if each.partition(".")[0] == name]:
                    del sys.modules[made]  # the half of it that was imported
        sys.meta_path.insert(0, self)

    def __exit__(self, *_):
        sys.meta_path.remove(self)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in self._reasons or not _asked_by_ppdet():
            return None
        MISSING[package] = self._reasons[package]
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def _why_not(name):
    """Why a package cannot be imported, or None if it can; imgaug, for one, is there and fails with numpy 2."""
    try:
        importlib.import_module(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _asked_by_ppdet():
    frame = sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in (__name__.partition(".")[0], "importlib"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ppdet"


class _StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unusable(name, (), {"__module__": self.__name__})


class _Unusable(type):
    """A class of a package that is not there: to make one of it, or to ask for anything in it, says what is missing."""

    def __call__(cls, *args, **kwargs):
        raise _missing(cls)

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise _missing(cls)


def _missing(cls):
    # Of a class that ppdet derives of one, the first of what it is made of.
    packages = (base.__module__.partition(".")[0] for base in cls.__mro__)
    package = next(name for name in packages if name in PACKAGES)
    cannot = f"which cannot be imported ({MISSING[package]}): {pip.install(package)}"
    return UserError(f"{PACKAGES[package]} in ppdet want {package}, {cannot}")
