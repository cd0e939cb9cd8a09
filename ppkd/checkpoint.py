"""Writes and reads checkpoints: the student's weights alone, and one resume file beside them."""

import os

import paddle

from ppkd.errors import UserError
from ppkd.weights import refuse_code

RESUME_SUFFIX = ".resume"
_FORMAT = 1


def write(path, content):
    """Save with Paddle under a temporary name, flush to disk, then rename: `path` is whole or as it was.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        paddle.save(content, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}; earlier checkpoints are untouched") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def save(folder, name, student_state, resume_state):
    """Write ``name.pdparams`` (for ppdet) and ``name.resume`` (for ``-r``) into `folder`.

    Args:
        student_state: what evaluation and ppdet load: the student's tensors, EMA's if it is on.
        resume_state: everything else (see `Trainer.state`), or None to write the weights alone.
    """
    write(os.path.join(folder, name + ".pdparams"), student_state)
    if resume_state is not None:
        write(os.path.join(folder, name + RESUME_SUFFIX), {"format": _FORMAT, **resume_state})


def load(path):
    """Read a resume file; `path` is the file, or the checkpoint's path with or without its suffix.

    Raises:
        UserError: no such file, or not a resume file of this format.
    """
    stem, suffix = os.path.splitext(path)
    file = path if suffix == RESUME_SUFFIX else (stem if suffix == ".pdparams" else path) + RESUME_SUFFIX
    if not os.path.isfile(file):
        raise UserError(f"-r {path}: no resume file {file}")
    try:
        refuse_code(file)
        state = paddle.load(file)
    except Exception as error:
        raise UserError(f"{file}: not readable as a resume file: {type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise UserError(f"{file}: not a resume file that this version of ppkd wrote")
    return state
