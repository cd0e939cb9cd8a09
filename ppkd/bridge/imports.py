"""Why something cannot be imported: what is missing or broken, by the name that pip knows, and how to get it."""

import importlib.util
import pathlib
import sys
import traceback

# By what it is imported -> by what it is installed, where that is another name.
_PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}
# Who asks, and is never what pip would put right here.
_OURS = {"ppkd", "ppdet", "paddle"}


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


_ANEW = "What it names is broken: install it anew"


def why_not_found(error):
    """What an error says that ended an import, and the cure; None for one that came up otherwise."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    packages = [_package(frame.filename) for frame in frames]
    if not isinstance(error, ImportError) and not any(
        frame.name == "<module>" and package not in {"ppkd", None} for frame, package in zip(frames, packages)
    ):
        return None
    what = " ".join((str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}").split())
    if "libGL" in what:
        return f"{what}. {_without_libgl()}"
    missing = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and missing and missing not in _OURS:
        asked = f" (wanted by {frames[-1].filename})" if frames else ""
        return f"{what}{asked}. pip install {_PACKAGES.get(missing, missing)} adds it"
    if (broken := _broken(frames, packages)) is None:
        return f"{what}. {_ANEW}"
    return (
        f"{what}. It comes from {broken}, which is broken or does not go with what is there: pip install --upgrade "
        f"--force-reinstall --no-deps {_PACKAGES.get(broken, broken)}"
    )


def _broken(frames, packages):
    """The package whose import has ended, the last on the way, or None."""
    for frame, package in zip(reversed(frames), reversed(packages)):
        # What others ask numpy for and it has no more comes up there; it is broken itself where its own import ends.
        if package and package not in _OURS and (package != "numpy" or frame.name == "<module>"):
            return package
    return None


def _package(file):
    """The name of the package that a file is in, as it is imported; None for what is part of Python, or a script."""
    path = pathlib.Path(file)
    top = path
    while (top.parent / "__init__.py").exists():
        top = top.parent
    packaged = top is not path or path.parent.name in ("site-packages", "dist-packages")
    return top.stem if packaged and top.stem not in sys.stdlib_module_names else None


def _without_libgl():
    from importlib import metadata  # as slow to import as all else together

    # The one that goes with numpy 1 is asked for by name: later ones want numpy 2.
    try:
        pin = "==4.5.5.64" if int(metadata.version("numpy").partition(".")[0]) < 2 else ""
    except (metadata.PackageNotFoundError, ValueError):
        pin = ""
    return f"pip install --no-deps --force-reinstall opencv-python-headless{pin} does without"
