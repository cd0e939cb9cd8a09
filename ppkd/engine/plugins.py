"""A user's own losses and connectors: registered by a decorator, found through a file or an installed package.

In a Python file that the recipe names in ``distill.plugins``, or a module behind an entry point of the group
``ppkd.plugins``::

    from paddle import nn
    from ppkd.plugins import register_loss

    @register_loss("charbonnier")
    class Charbonnier(nn.Layer):
        def __init__(self, eps=1e-3):
            super().__init__()
            self.eps = eps

        def forward(self, student, teacher):
            return ((student - teacher).square() + self.eps**2).sqrt().mean()
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import sys
import traceback

from paddle import nn

from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.loss_layers import context_names
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


def register_loss(name):
    """Decorator that makes a loss known under `name` in ``loss:`` of a term.

    The class is an ``nn.Layer``. Its ``forward(student, teacher, ...)`` returns a scalar or a dict of scalars; what it
    takes beside the two tensors are names of `context.Context`. Parameters of its constructor are those of the file,
    but for ``sides``, `sides.Sides`, and the short names ``channels`` and ``student_channels``. With
    ``all_levels = True`` on the class it gets lists of all levels' tensors.

    Raises:
        UserError: a name that is taken, or a class that is no loss.
    """

    def register(kind):
        _check_class(kind, "loss", name, LOSSES)
        context_names(_Bound(kind), name)
        LOSSES[name] = kind
        return kind

    return register


def register_connector(name):
    """Decorator that makes a connector known under `name` in ``student_connector:`` and ``teacher_connector:``.

    The class is an ``nn.Layer`` made as ``kind(channels, target, parameters of the file)``: channels that come in and
    that should go out; its attribute ``channels`` says how many do. Its constructor may take ``sides``, `sides.Sides`,
    and its ``forward(x)`` ``moment``, `sides.Moment`.

    Raises:
        UserError: a name that is taken, or a class that is no connector.
    """

    def register(kind):
        _check_class(kind, "connector", name, CONNECTORS)
        lacking = [k for k in ("channels", "target") if k not in inspect.signature(kind).parameters]
        if lacking:
            raise UserError(
                f"connector {name}: its constructor lacks {' and '.join(lacking)}; it has to begin with "
                "__init__(self, channels, target)"
            )
        CONNECTORS[name] = kind
        return kind

    return register


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


def _check_class(kind, what, name, known):
    if not (isinstance(kind, type) and issubclass(kind, nn.Layer)):
        raise UserError(f"{what} {name}: has to be a class that inherits from paddle.nn.Layer, found {kind!r}")
    if name in known:
        raise UserError(f"{what} {name}: there is one of this name already ({known[name]!r}); take another")


class _Bound:
    """A class's ``forward`` without ``self``, for looking at its signature."""

    def __init__(self, kind):
        parameters = list(inspect.signature(kind.forward).parameters.values())[1:]

        def forward():
            pass

        forward.__signature__ = inspect.Signature(parameters)
        self.forward = forward
