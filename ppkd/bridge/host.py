"""What ppkd stands on in this process: Paddle, ppdet, Python, numpy, and what had to be cured of them."""

import importlib.util
import os
import pathlib
import platform
import sys

from ppkd.errors import UserError

_PADDLE = (
    "Paddle is not installed in {python}. With PyPI's for the CPU: pip install paddlepaddle=={version} (for GPUs see "
    "https://www.paddlepaddle.org.cn/install)"
)
_CLONE = (
    "then pip install --no-deps -e PaddleDetection, or call `python -m ppkd ...` in the clone's folder, or set "
    "PYTHONPATH to it"
)
_PPDET = (
    "PaddleDetection (ppdet) is not installed in {python}. Either its wheel of 2023: pip install "
    '"ppkd[paddledet]"; or a clone, also a later one: pip install -r PaddleDetection/requirements.txt, ' + _CLONE
)
# What the wheel and the clones' requirements.txt pin has no releases for these Pythons.
_PPDET_OF_A_CLONE = (
    "PaddleDetection (ppdet) is not installed in {python}. Its wheel of 2023 is for Python 3.10 and 3.11; here a "
    'clone: pip install "ppkd[clone]" for what it imports, not its requirements.txt, ' + _CLONE
)


def check_host():
    """Check that Paddle and ppdet are there, without importing them.

    Raises:
        UserError: one is not; says how to install it.
    """
    old = sys.version_info < (3, 12)
    names = {"python": sys.executable, "version": "2.6.2" if old else "3.3.1"}
    for name, message in (("paddle", _PADDLE), ("ppdet", _PPDET if old else _PPDET_OF_A_CLONE)):
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None and name not in sys.modules:
            raise UserError(message.format(**names))
        if spec is not None and spec.origin is None:  # to Python any folder of that name is a package, and goes first
            hidden = f"; {', '.join({*spec.submodule_search_locations})}, a folder without __init__.py, is not it"
            raise UserError(message.format(**names) + hidden)


def versions():
    """What runs: ``{"ppkd": .., "paddle": .., "paddledet": .., "python": .., "numpy": ..}``, all texts."""
    import numpy
    import paddle

    import ppkd

    return {
        "ppkd": ppkd.__version__,
        "paddle": paddle.__version__,
        "paddledet": version_of_ppdet(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
    }


def place_of_ppdet():
    """The folder of the package ppdet, which is not imported for it: it takes seconds, and prints what it misses."""
    return str(pathlib.Path(importlib.util.find_spec("ppdet").origin).parent)


def version_of_ppdet():
    """The wheel's version or, of a clone, whose own version is 0.0.0, the commit and whether files were changed."""
    folder = pathlib.Path(place_of_ppdet())
    if (folder.parent / ".git").exists():
        commit = _git(folder, "rev-parse", "--short=8", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
        return f"clone, commit {commit or 'unknown'}{', changed' if changed else ''}"
    from importlib import metadata  # as slow to import as all else together, and every command imports this module

    for package in metadata.distributions(name="paddledet"):
        if pathlib.Path(package.locate_file("ppdet")).resolve() == folder.resolve():
            return package.version
    return "a folder without a version"


def _git(folder, *command):
    import subprocess

    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def record_of_host():
    """`versions`, the place of ppdet, and what was cured, as a run's record keeps it."""
    from ppkd.bridge import compat
    from ppkd.bridge.compat.looks import APPLIED, NOT_APPLICABLE, NOT_NEEDED
    from ppkd.bridge.compat.stand_ins import MISSING

    states = {state: [name for name, found in compat.STATES.items() if found.startswith(state)]
              for state in (APPLIED, NOT_NEEDED, NOT_APPLICABLE)}  # fmt: skip
    return versions() | {"ppdet": place_of_ppdet(), "cures": states, "stand-ins": sorted(MISSING)}


def host_text():
    """All of it for a reader, a line each; ppdet has to be imported. The cures of an export are applied by it."""
    import paddle

    from ppkd.bridge import compat
    from ppkd.bridge.compat import static_graph
    from ppkd.bridge.compat.stand_ins import MISSING, PACKAGES

    device = "with CUDA" if paddle.is_compiled_with_cuda() else "for the CPU"
    found = versions()
    lines = [
        f"ppkd    {found['ppkd']} in {os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}",
        f"Paddle  {found['paddle']}, {device}",
        f"ppdet   {found['paddledet']}, in {place_of_ppdet()}",
        f"Python  {found['python']}, {sys.executable}",
        f"numpy   {found['numpy']}",
    ]
    for name, reason in sorted(MISSING.items()):
        lines.append(f"absent  {name} ({reason}): nothing but {PACKAGES[name]} wants it")
    cures = {cure: compat.STATES[cure.__name__] for cure in compat.cures()}
    for title, found in (("", cures), (", in a process that exports", static_graph.cure_export())):
        lines += ["", f"cures, each of a defect of ppdet or Paddle{title}"]
        lines += [f"  {state:<13} {cure.__name__}: {cure.__doc__.splitlines()[0]}" for cure, state in found.items()]
    return "\n".join(lines)
