"""Loads weights into ppdet models and says what fitted."""

from dataclasses import dataclass

from ppkd.errors import UserError
from ppkd.files.first_use import converted
from ppkd.files.locate import find_weights
from ppkd.files.tensor_files import read_weights
from ppkd.files.torch_files import is_torch_file
from ppkd.terminal.log import logger


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
        if not self.total:
            return f"{self.path}, which has its weights in it"
        text = f"{len(self.taken)} of {self.total} tensors taken from {self.path}"
        for what, names in (("not in the file", self.missing), ("of another shape", self.unfit)):
            if names:
                text += f"; {len(names)} {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return text


def load_into(model, weights, what, config=None):
    """Load weights into `model`, matching names as ppdet does (suffixes, so that bare backbones fit too).

    Args:
        model: ppdet model.
        weights: path or URL; of PyTorch's files those that ``tools/convert.py`` knows are converted (`first_use`).
        what: for messages.
        config: the model's, with which weights of MMDetection are compared.

    Returns:
        `Match`.

    Raises:
        UserError: no file, broken file, or not one tensor fits.
    """
    import paddle
    from ppdet.utils.checkpoint import match_state_dict

    own = model.state_dict()
    if not own:  # it was built from the file
        return Match(str(weights), [], [], [], 0)
    path = find_weights(weights, what)
    if is_torch_file(path):
        path = converted(path, model, what, config)
    state = {k: v for k, v in read_weights(path).items() if hasattr(v, "shape")}
    try:
        if hasattr(model, "own_names"):  # a model that is published under other names
            state = model.own_names(state)
        chosen = match_state_dict(own, state)
    except (UserError, ValueError) as error:
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


def load_teacher(model, weights, needed, config=None):
    """Load a teacher's weights; every tensor of the parts that will run has to be in the file.

    Args:
        model: the teacher.
        weights: path or URL.
        needed: first components of the module paths that run, for example ``{"backbone", "neck"}``.
        config: the teacher's.

    Raises:
        UserError: as `load_into`, or a needed tensor is missing or of another shape.
    """
    match = load_into(model, weights, "teacher weights", config)
    lacking = [n for n in [*match.missing, *match.unfit] if n.split(".")[0] in needed]
    if lacking:
        raise UserError(f"teacher weights do not fit the teacher, the detector of the slim file's _BASE_: {match}")
    if match.unfit:
        logger().warning(
            "teacher weights: what no term takes has another shape than in the config, as where they are of other "
            "classes; `ppkd doctor` tells whether this teacher knows anything of these images"
        )
    return match


def load_exactly(model, weights, what, num_classes=None, of="-c"):
    """Load weights that have to be this model's own: every tensor, every shape.

    Args:
        model, weights, what: as for `load_into`.
        num_classes: the model's, if known, for the message: another number is the usual reason.
        of: option that names the model's config, for the message.

    Raises:
        UserError: as `load_into`, or the match is not complete.
    """
    match = load_into(model, weights, what)
    if not match.complete:
        wrong_count = num_classes is not None and match.unfit and not match.missing
        hint = f" (of another num_classes? {of} has {num_classes})" if wrong_count else ""
        raise UserError(f"{what} do not fit the detector of {of}: {match}{hint}")
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
