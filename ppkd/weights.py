"""Loads weights into ppdet models and says what fitted."""

import os
import pickle
from dataclasses import dataclass

from ppkd.errors import UserError
from ppkd.workspace import import_ppdet


@dataclass
class Match:
    """What of a weight file went into a model.

    Attributes:
        path: the local file.
        taken: names of the model's tensors that were set.
        missing: names of the model's tensors that the file does not have.
        unfit: ``name: file shape, model shape`` for tensors of another shape.
        total: number of the model's tensors.
    """

    path: str
    taken: list
    missing: list
    unfit: list
    total: int

    @property
    def complete(self):
        return len(self.taken) == self.total

    def __str__(self):
        text = f"{len(self.taken)} of {self.total} tensors taken from {self.path}"
        for what, names in (("not in the file", self.missing), ("of another shape", self.unfit)):
            if names:
                text += f"; {len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return text


def find_weights(weights, what):
    """The local file for a path (with or without ``.pdparams``) or a URL, downloading the latter to ppdet's cache.

    Args:
        weights: as in ``pretrain_weights`` or ``weights``.
        what: for messages, for example ``teacher weights``.

    Raises:
        UserError: there is no such file, or the download failed.
    """
    import_ppdet()
    from ppdet.utils import download
    from ppdet.utils.checkpoint import is_url

    weights = str(weights)
    if is_url(weights):
        try:
            return download.get_weights_path(weights)
        except (Exception, SystemExit) as error:  # ppdet raises whatever its download met
            # It asks the server for a checksum even if it has the file: without a network the copy has to do.
            copy = download.map_path(download.parse_url(weights), download.WEIGHTS_HOME)
            if os.path.isfile(copy):
                return copy
            raise UserError(
                f"{what}: {weights} could not be downloaded ({type(error).__name__}). Is there a network? Otherwise "
                "download it elsewhere and give the file's path instead"
            ) from error
    for path in (weights, weights + ".pdparams"):
        if os.path.isfile(path):
            return path
    raise UserError(
        f"{what}: no file {weights}{'' if weights.endswith('.pdparams') else ' or ' + weights + '.pdparams'} "
        f"(looked in {os.path.dirname(os.path.abspath(weights))}). Give a path or a URL"
    )


class _TensorsOnly(pickle.Unpickler):
    """Unpickles arrays and plain containers, what Paddle's files consist of, and calls nothing else."""

    _KNOWN = frozenset(
        ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.core.multiarray.scalar"]
        + ["numpy._core.multiarray.scalar", "numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "_codecs.encode"]
        + ["builtins.tuple", "__builtin__.tuple"]
    )

    def find_class(self, module, name):
        if f"{module}.{name}" not in self._KNOWN:
            raise UserError(f"it calls {module}.{name}, which tensors do not need, so it is not opened")
        return super().find_class(module, name)


def refuse_code(path):
    """Refuse a file of `paddle.save` that would run code: `paddle.load` unpickles whatever the file names.

    Raises:
        UserError: it names a function or class that arrays and containers do not need.
    """
    with open(path, "rb") as file:
        _TensorsOnly(file, encoding="latin1").load()


def read_weights(path):
    """Read a ``.pdparams`` file into a dict of name -> array.

    Raises:
        UserError: the file is not readable as Paddle weights.
    """
    import paddle

    try:
        refuse_code(path)
        state = paddle.load(path, return_numpy=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        raise UserError(f"{path}: not a Paddle weight file, or a damaged one ({_one_line(error)})") from error
    if not isinstance(state, dict) or not any(hasattr(v, "shape") for v in state.values()):
        raise UserError(f"{path}: not a Paddle weight file: there are no named tensors in it")
    return state


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def load_into(model, weights, what):
    """Load weights into `model`, matching names as ppdet does (suffixes, so that bare backbones fit too).

    Args:
        model: ppdet model.
        weights: path or URL.
        what: for messages.

    Returns:
        `Match`.

    Raises:
        UserError: no file, broken file, or not one tensor fits.
    """
    import paddle
    from ppdet.utils.checkpoint import match_state_dict

    path = find_weights(weights, what)
    state = {k: v for k, v in read_weights(path).items() if hasattr(v, "shape")}
    own = model.state_dict()
    try:
        chosen = match_state_dict(own, state)
    except ValueError as error:
        raise UserError(f"{what}: {path}: {error}") from error
    unfit = [
        f"{k}: {list(state[k].shape)}, model {list(v.shape)}"
        for k, v in own.items()
        if k not in chosen and k in state and list(state[k].shape) != list(v.shape)
    ]
    missing = [k for k in own if k not in chosen and k not in state]
    match = Match(path, list(chosen), missing, unfit, len(own))
    if not chosen:
        raise UserError(f"{what}: they do not fit {type(model).__name__}: {match}")
    model.set_state_dict({k: paddle.to_tensor(v).astype(own[k].dtype) for k, v in chosen.items()})
    return match


def load_teacher(model, weights, needed):
    """Load a teacher's weights; every tensor of the parts that will run has to be in the file.

    Args:
        model: the teacher.
        weights: path or URL.
        needed: first components of the module paths that run, for example ``{"backbone", "neck"}``.

    Raises:
        UserError: as `load_into`, or a needed tensor is missing or of another shape.
    """
    match = load_into(model, weights, "teacher weights")
    lacking = [n for n in [*match.missing, *match.unfit] if n.split(".")[0] in needed]
    if lacking:
        raise UserError(f"teacher weights do not fit the teacher, the detector of the slim file's _BASE_: {match}")
    return match


def load_exactly(model, weights, what, num_classes=None):
    """Load weights that have to be this model's own: every tensor, every shape.

    Args:
        model, weights, what: as for `load_into`.
        num_classes: the model's, if known, for the message: another number is the usual reason.

    Raises:
        UserError: as `load_into`, or the match is not complete.
    """
    match = load_into(model, weights, what)
    if not match.complete:
        wrong_count = num_classes is not None and match.unfit and not match.missing
        hint = f" (of another num_classes? -c has {num_classes})" if wrong_count else ""
        raise UserError(f"{what} do not fit the detector of -c: {match}{hint}")
    return match


def inherit(student, teacher, parts):
    """Copy a teacher's tensors into the student where name and shape agree (FGD's inheriting strategy).

    A part of another class has other meanings under the same names: of it nothing is taken.

    Args:
        student, teacher: ppdet models.
        parts: ``neck`` and ``head``; a head stands under whatever name it has in ppdet. Backbones never.

    Returns:
        Names of the student's tensors that were set.
    """
    of_teacher = dict(teacher.named_children())
    shared = {
        name
        for name, part in student.named_children()
        if any(kind in name for kind in parts) and name != "backbone" and _related(part, of_teacher.get(name))
    }
    own, theirs = student.state_dict(), teacher.state_dict()
    chosen = {
        k: theirs[k]
        for k, v in own.items()
        if k.split(".")[0] in shared and k in theirs and theirs[k].shape == v.shape
    }
    student.set_state_dict(chosen)
    return list(chosen)


def _related(first, second):
    return isinstance(first, type(second)) or isinstance(second, type(first))
