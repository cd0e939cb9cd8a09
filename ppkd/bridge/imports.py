"""Why something cannot be imported: what is missing or broken, by the name that pip knows, and how to get it."""

import importlib.util
import pathlib
import sys
import traceback
import types
from collections import namedtuple

from ppkd.bridge import pip

# Who asks, and is never what pip would put right here.
_OURS = {"ppkd", "ppdet"}
_ANEW = "What it names is broken: install it anew"

# Where it came up, the last place of all: a file, the function there, and the package that the file is in.
_Place = namedtuple("_Place", ["file", "function", "package"])


def why_not_imported(error):
    """The message for an error of ``import ppdet``: where it lies, and how to get what it lacks.

    Returns:
        The message, or None if the error is not of an import.
    """
    how = why_not_found(error)
    if how is None:
        return None
    spec = importlib.util.find_spec("ppdet")
    folder = pathlib.Path(spec.origin).parent if spec and spec.origin else pathlib.Path("?")
    listed = folder.parent / "requirements.txt"
    if how.endswith(_ANEW) and listed.exists() and sys.version_info < (3, 12):
        how = how.removesuffix(_ANEW) + f"pip install -r {listed} installs what it wants, numpy of its choice included"
    return f"ppdet in {folder} cannot be imported: {how}"


def why_not_found(error):
    """What an error says that ended an import, and the cure; None for one that came up otherwise."""
    places = _places(error)
    if not isinstance(error, ImportError) and not any(
        place.function == "<module>" and place.package not in {"ppkd", None} for place in places
    ):
        return None
    what = _what(error)
    if "libGL" in what:
        return f"{what}. {pip.install('cv2')} does without"
    if "Descriptors cannot be created directly" in what:  # protobuf's, which goes on with what to install
        return what
    missing = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and missing in sys.stdlib_module_names:
        return f"{what}. It is a part of Python that {sys.executable} was built without: another Python has it"
    if isinstance(error, ModuleNotFoundError) and missing and missing not in {*_OURS, "paddle"} and _absent(missing):
        asked = f" (wanted by {places[-1].file})" if places else ""
        return f"{what}{asked}. {pip.install(missing)} adds it"
    broken = _broken(places) or _asked_for(error)
    if broken is None and isinstance(error, SyntaxError):
        return f"{what}. Put that file back as it was (in a clone, git status names what was changed)"
    if broken is None:
        return f"{what}. {_ANEW}"
    beside = "what is there" if broken == "numpy" else f"numpy {pip.version('numpy') or 'that is there'}"
    which = " ".join(filter(None, (broken, pip.version(*pip.installed(broken)))))
    return f"{what}. It comes from {which}, which is broken or does not go with {beside}: {pip.install(broken)}"


def _what(error):
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
    return " ".join(what.split()).rstrip(".")


def _places(error):
    found = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        found.append((error.filename, "<module>"))
    of_python = ("<frozen", importlib.__file__)
    return [_Place(*each, _package(each[0])) for each in found if not each[0].startswith(of_python)]


def _broken(places):
    """The package whose import has ended, the last on the way, or None."""
    for place in reversed(places):
        # What others ask of numpy and it has no more comes up there; it is broken itself where its own import ends.
        ends = place.function == "<module>" or place.package not in pip.KEPT
        if place.package and place.package not in _OURS and ends:
            return place.package
    return None


def _asked_for(error):
    """The package that was asked for what it does not have, or None."""
    module = getattr(error, "obj", None) if isinstance(error, AttributeError) else None
    name = module.__name__ if isinstance(module, types.ModuleType) else getattr(error, "name", None)
    top = (name or "").partition(".")[0] if isinstance(error, ImportError) or module is not None else ""
    return top if top and top not in _OURS | pip.KEPT | sys.stdlib_module_names else None


def _package(file):
    """The name of the package that a file is in, as it is imported; None for what is part of Python, or a script."""
    path = pathlib.Path(file)
    top = path
    while (top.parent / "__init__.py").exists():
        top = top.parent
    packaged = top is not path or path.parent.name in ("site-packages", "dist-packages")
    return top.stem if packaged and top.stem not in sys.stdlib_module_names else None


def _absent(package):
    """Whether nothing can be imported by this name; a folder that others share (``google``) is nothing."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # it is there, made by hand
        return False
    return spec is None or spec.origin is None
