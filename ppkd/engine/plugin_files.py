"""Finds a user's own losses and connectors: in files that a recipe names, or in installed packages.

Files stand in ``distill.plugins``; a package offers a module behind an entry point of the group ``ppkd.plugins``. How
what they hold is made known: `registering`.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import sys
import traceback

from ppkd.engine.connectors import CONNECTORS
from ppkd.errors import UserError
from ppkd.losses import LOSSES
from ppkd.terminal.log import logger

GROUP = "ppkd.plugins"

_loaded = set()
_installed = _permitted = False


def permit():
    """Let files that a recipe names be run in this process: what ``--allow-plugins`` says."""
    global _permitted
    _permitted = True


def load_plugins(paths, where, named=False):
    """Run the files that register a user's losses and connectors, each once in a process, and say so before.

    Args:
        paths: the files.
        where: file that names them, for messages.
        named: whether the command line names them itself.

    Raises:
        UserError: a file that nobody has permitted, that is not there, fails, or registers nothing.
    """
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str) for path in paths):
        raise UserError(f"{where}: distill.plugins has to be a path or a list of paths, found {paths!r}")
    new = {path: real for path in paths if (real := os.path.realpath(path)) not in _loaded}
    if new and not (named or _permitted):
        raise UserError(
            f"{where}: distill.plugins names Python files, which would run with your rights: {', '.join(new)}. Read "
            "them, and allow it with --allow-plugins (docs/terms.md)"
        )
    for path, real in new.items():
        if not os.path.isfile(real):
            raise UserError(f"{where}: distill.plugins: no such file: {path}")
        before = set(LOSSES) | set(CONNECTORS)
        _tell(f"{where}: distill.plugins: running {path}")
        _run(real, path, where)
        if before == set(LOSSES) | set(CONNECTORS):
            raise UserError(f"{where}: {path} registers neither a loss nor a connector (ppkd.plugins.register_loss)")
        _loaded.add(real)


def _tell(text):
    """Also where the log is quiet because a command's own output stands on the screen."""
    if logger().isEnabledFor(logging.INFO):
        logger().info(text)
    elif os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        print(f"ppkd: {text}", file=sys.stderr, flush=True)


def load_installed():
    """Import what installed packages offer under the entry point group ``ppkd.plugins``, once in a process.

    Raises:
        UserError: an import that fails, naming the package.
    """
    global _installed
    if _installed:
        return
    _installed = True
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"the plugin {entry.name} ({entry.value}) cannot be imported: {error!r}") from error


def fingerprint(path):
    """Checksum of a plugin file, part of what a run is; None if there is no such file."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def _run(real, path, where):
    # Under a name of its own, so that pickles and messages can name it and no module of that name is shadowed.
    name = f"ppkd_plugin_{hashlib.sha256(real.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None:
        raise UserError(f"{where}: distill.plugins: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    known = [dict(LOSSES), dict(CONNECTORS)]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        for registry, before in zip((LOSSES, CONNECTORS), known):
            registry.clear()
            registry.update(before)
        line = next((f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == real), None)
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path}{f':{line}' if line else ''}: {reason}") from error
