"""What length, size and batch a course is given where the user says nothing, and why."""

import math
from dataclasses import dataclass

from ppkd.recipe.settings import STRIDE, longest_side

# A small detector that starts from random weights has left its plateau after so many steps, more often than not.
_STEPS = 400
# Images that a CPU gets through; a file's own size is for GPUs where it is larger.
_CPU_SIDE = 320
_LEAST_SIDE = 96
_STEPS_OF_EPOCH = 4
# A teacher is trained so much longer than its student.
TEACHER = 2


@dataclass(frozen=True)
class Sizes:
    """Length of the student's run in epochs, the teacher's, longer side of the images, images a batch."""

    epochs: int
    teacher_epochs: int
    imgsz: int
    batch: int


def propose(data, student, teacher, gpu, given, trained=False):
    """Sizes for a data set and a machine.

    Args:
        data: `data.Data`.
        student, teacher: the configs, as their files have them.
        gpu: whether there is one.
        given: what the user says: ``epochs``, ``teacher_epochs``, ``imgsz``, ``batch``, or None for each.
        trained: whether the teacher has its weights, so that its length is of no training here.

    Returns:
        ``(Sizes, list of reasons)``; what the user says has no reason.
    """
    told = []

    def chosen(key, value, why):
        if given.get(key) is None:
            told.append(f"{key} {value} ({why})")
        return given.get(key) or value

    batch = chosen("batch", *_batch(data, student))
    imgsz = chosen("imgsz", *_side(data, student, gpu))
    steps = max(1, data.train // batch)
    epochs = chosen("epochs", *_length(student, steps))
    if trained:
        return Sizes(epochs, given.get("teacher_epochs") or _epochs(teacher), imgsz, batch), told
    longer = max(epochs * TEACHER, 1)
    why = f"{TEACHER} times the student's"
    if given.get("epochs") is None and _epochs(teacher) > longer:
        longer, why = _epochs(teacher), "as its file has it"
    return Sizes(epochs, chosen("teacher_epochs", longer, why), imgsz, batch), told


def _batch(data, student):
    own = (student.get("TrainReader") or {}).get("batch_size") or 8
    most = max(1, data.train // _STEPS_OF_EPOCH)
    return (own, "as its file has it") if own <= most else (most, f"{data.train} images make {_STEPS_OF_EPOCH} steps")


def _side(data, student, gpu):
    own = longest_side(student) or 640
    if data.side and data.side < own:
        return max(_LEAST_SIDE, math.ceil(data.side / STRIDE) * STRIDE), f"images have {data.side:.0f} pixels"
    return (own, "as its file has it") if gpu or own <= _CPU_SIDE else (_CPU_SIDE, "for a CPU")


def _length(student, steps):
    own, least = _epochs(student), math.ceil(_STEPS / steps)
    return (own, "as its file has it") if own >= least else (least, f"{least * steps} steps, {steps} an epoch")


def _epochs(config):
    epochs = config.get("epoch")
    return epochs if isinstance(epochs, int) and epochs > 0 else 1
