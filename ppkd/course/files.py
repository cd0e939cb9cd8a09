"""The three files of a course: student, teacher and how the one teaches the other; for people to edit."""

import os

from ppkd.course.methods import lines_of
from ppkd.errors import UserError
from ppkd.files.shipped import find_config
from ppkd.files.write import write_text
from ppkd.files.yaml_io import dump, merge, read_with_bases

STUDENT, TEACHER, SLIM = NAMES = ("student.yml", "teacher.yml", "slim.yml")
_HEADS = {
    STUDENT: "The student and its run: what differs from {base}.",
    TEACHER: "The teacher and its training: what differs from {base}.",
    SLIM: "How the teacher of teacher.yml teaches: {why}.",
}


def read_config(name, option):
    """A config by name or path, with all that its bases say.

    Returns:
        ``(path, values)``.

    Raises:
        UserError: no such file, or no detector's.
    """
    path, config = find_config(name, option), {}
    for _, values in read_with_bases(path)[1]:
        merge(config, values)
    if "slim" in config:
        raise UserError(f"{option} {name}: is a slim file; give the config of a detector")
    if "architecture" not in config:
        raise UserError(f"{option} {name}: describes no detector: no `architecture` in it")
    return path, config


def write_files(folder, data, sizes, student, teacher, method, weights, gpu, unlabelled=None):
    """Write the files that are not there yet; what is there may have been edited, and stays.

    Args:
        folder: where to.
        data: `data.Data`.
        sizes: `sizes.Sizes`.
        student, teacher: ``(path, values)`` of `read_config`.
        method: as `methods.lines_of` takes it.
        weights: path of the teacher's weights, which need not be there yet.
        gpu: whether there is one.
        unlabelled: what the key of that name says, or None.

    Returns:
        ``(names of the files that were written, why this method)``.
    """
    lines, why = lines_of(method, student[1], teacher[1], bool(unlabelled))
    common = {**data.keys, "metric": "COCO", "num_classes": "auto", "use_gpu": gpu}
    common |= {"imgsz": sizes.imgsz, "batch": sizes.batch}
    beside = {"unlabelled": unlabelled} if unlabelled else {}
    contents = {
        STUDENT: {"_BASE_": [_base(student[0])], **common, "epochs": sizes.epochs},
        TEACHER: {"_BASE_": [_base(teacher[0])], **common, "epochs": sizes.teacher_epochs},
        SLIM: {"_BASE_": [TEACHER], "pretrain_weights": weights, **beside, **lines},
    }
    bases = {STUDENT: student[0], TEACHER: teacher[0]}
    written = []
    for name, content in contents.items():
        path = os.path.join(folder, name)
        if os.path.exists(path):
            continue
        head = _HEADS[name].format(base=os.path.basename(bases.get(name, "")), why=why)
        write_text(path, f"# {head}\n\n{dump(content)}")
        written.append(name)
    return written, why


def _base(path):
    """What `_BASE_` says: a config that comes with ppkd by its name, which holds on any machine."""
    name = os.path.basename(path)
    try:
        ours = os.path.samefile(find_config(name, "_BASE_"), path)
    except (UserError, OSError):
        ours = False
    return name if ours else os.path.abspath(path)
