"""Takes the student out of a checkpoint of PaddleDetection's distillation.

What PaddleDetection's trainer writes of a distillation (2.6.0, read in its code and in its files):

- without EMA, ``.pdparams`` is ``student_model.state_dict()``: a plain detector's already;
- with EMA, ``.pdparams`` is the same with the averages, which are what it evaluates, while ``.pdema`` is the state of
  the whole DistillModel before averaging: ``student_model.*`` and ``teacher_model.*``. Its losses keep their own
  parameters in lists and dicts, so they stand in no file.

So prefixed names stand in ``.pdema`` files and in what one's own script saved of a DistillModel.
"""

import os

from ppkd.errors import UserError
from ppkd.files.fit import compare, misfit
from ppkd.files.tensor_files import read_weights
from ppkd.terminal.log import logger

STUDENT, TEACHER = "student_model", "teacher_model"
_PARALLEL = "_layers."


def split(arrays):
    """Sort tensors by the part of a DistillModel that they belong to.

    DataParallel's ``_layers.`` is dropped, before a part's name and after it.

    Args:
        arrays: name -> array.

    Returns:
        Part (``student_model``, ``teacher_model``, or ``""`` for everything else) -> {name without the part: array}.
    """
    parts = {STUDENT: {}, TEACHER: {}, "": {}}
    for name, array in arrays.items():
        name = name.removeprefix(_PARALLEL)
        part, _, rest = name.partition(".")
        if part in (STUDENT, TEACHER):
            parts[part][rest.removeprefix(_PARALLEL)] = array
        else:
            parts[""][name] = array
    return parts


def take_student(path, model, num_classes=None):
    """Read the student's tensors out of a checkpoint, all of them and nothing else.

    A checkpoint without prefixes is a plain detector's and is taken whole; the log says so.

    Args:
        path: the local file.
        model: the ppdet model that they have to fit, every name and every shape.
        num_classes: the model's, if known, for messages.

    Returns:
        name -> numpy array, in the model's order, of the types in the file.

    Raises:
        UserError: a file that holds no weights, no student in it, or one that does not fit.
    """
    stem, suffix = os.path.splitext(path)
    if suffix == ".pdopt":
        raise UserError(f"{path}: the optimizer's state, in which there are no weights; they stand in {stem}.pdparams")
    parts = split({k: v for k, v in read_weights(path).items() if hasattr(v, "shape")})
    if parts[TEACHER] and not parts[STUDENT]:
        rest = f" and {len(parts[''])} others" if parts[""] else ""
        raise UserError(f"{path}: no {STUDENT}.* in it, only the teacher's tensors ({len(parts[TEACHER])}){rest}")
    part = STUDENT if parts[STUDENT] else ""
    fit = compare(parts[part], model)
    if not fit.complete:
        whose = "its student does" if part else f"no {STUDENT}.* in it, and as a plain detector's its tensors do"
        swapped = parts[TEACHER] and compare(parts[TEACHER], model).complete
        found = f"{fit} (its teacher does: is -c the teacher's file?)" if swapped else misfit(fit, num_classes)
        raise UserError(f"{path}: {whose} not fit the detector of -c: {found}")
    _tell(path, parts)
    return {name: parts[part][name] for name in model.state_dict()}


def _tell(path, parts):
    """Log which weights these are and what is left out."""
    stem, suffix = os.path.splitext(path)
    if suffix == ".pdema":
        logger().warning("%s: the weights before averaging; PaddleDetection evaluates those of %s.pdparams", path, stem)
    elif os.path.isfile(stem + ".pdema"):
        logger().info("%s: the averages (EMA), which PaddleDetection evaluates", path)
    if not parts[STUDENT]:
        logger().info("%s: no %s.* in it: it is a plain detector's already, taken whole", path, STUDENT)
        return
    left = {TEACHER: len(parts[TEACHER])}
    for name in parts[""]:
        left[name.split(".")[0]] = left.get(name.split(".")[0], 0) + 1
    dropped = ", ".join(f"{count} of {name}" for name, count in left.items() if count)
    logger().info("%s: %d tensors of %s; left out: %s", path, len(parts[STUDENT]), STUDENT, dropped or "none")
