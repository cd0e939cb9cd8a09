"""Writes and reads checkpoints: the student's weights alone, and one resume file beside them."""

import contextlib
import glob
import os
import pickletools

from ppkd.errors import UserError
from ppkd.files.class_names import SUFFIX, write_names
from ppkd.files.paths import safe_name
from ppkd.files.regular import open_file
from ppkd.files.tensor_files import read_tensors, write_tensors
from ppkd.files.write import make_folder, replacing
from ppkd.terminal.log import logger

RESUME_SUFFIX = ".resume"
# The checkpoint that is written again and again, inside of epochs and when a run is stopped.
LAST = "last"
_FORMAT = 2
# What every resume file has, of whatever version; parts that may be missing are told of by who restores them.
_KINDS = {
    "epoch": int, "batch": int, "step": int, "best": int | float, "digest": dict, "student": dict, "optimizer": dict,
    "terms": dict | None, "moving": list, "ema": dict | None,
}  # fmt: skip
# Where a run stands, what its files begin with.
_PLACE = ("step", "epoch", "batch")
_BEGIN = 4096


def write(path, content):
    """Save as `tensor_files` does; `path` is whole or as it was, and its folder is made if there is none.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    make_folder(os.path.dirname(path))
    with replacing(path, "; earlier checkpoints are untouched") as temporary:
        write_tensors(temporary, content, os.path.splitext(path)[1])


def save(folder, name, student_state, resume_state, names=None):
    """Write ``name.pdparams`` (for ppdet) and then ``name.resume`` (for ``-r``) into `folder`.

    Either file is whole or as it was, and the resume file, which holds the student's own tensors too, is of use alone.

    Args:
        student_state: what evaluation and ppdet load: the student's tensors, EMA's if it is on.
        resume_state: everything else (see `Trainer.state`), or None to write the weights alone.
        names: of the classes, for ``name.names.yml`` beside the weights; None where they are not known.
    """
    weights = os.path.join(folder, name + ".pdparams")
    write(weights, student_state)
    if names is not None:
        write_names(weights, names)
    if resume_state is not None:
        first = {key: resume_state[key] for key in _PLACE if key in resume_state}  # for `_place`
        write(os.path.join(folder, name + RESUME_SUFFIX), {"format": _FORMAT, **first, **resume_state})


def keep_newest(folder, count, resumable=0, written=None):
    """Remove all but the newest of the checkpoints that are numbered by epochs; the others stay in any case.

    Args:
        folder: the output folder.
        count: how many stay; 0 keeps all.
        resumable: of how many the resume file stays, several times as large as the weights; 0 keeps all.
        written: name of the checkpoint that was just written, which is among the resumable ones.
    """
    stems = {os.path.splitext(path)[0] for path in glob.glob(os.path.join(glob.escape(folder), "*.pdparams"))}
    numbered = sorted((int(name), stem) for stem in stems if (name := os.path.basename(stem)).isdecimal())
    for _, stem in numbered[:-count] if count else ():
        _remove(stem, (RESUME_SUFFIX, SUFFIX, ".pdparams"))
    if resumable:
        # Those of a longer run that was here before are none of this one's.
        last = int(written) if str(written).isdecimal() else float("inf")
        before = [stem for number, stem in numbered if number < last]
        for stem in before[: len(before) - (resumable - 1)]:
            _remove(stem, (RESUME_SUFFIX,))


def _remove(stem, suffixes):
    for suffix in suffixes:
        if os.path.exists(stem + suffix):
            os.remove(stem + suffix)


def load(path):
    """Read a resume file; `path` is the file, or the checkpoint's path with or without its suffix.

    Raises:
        UserError: no such file, or not a resume file of this format.
    """
    stem, suffix = os.path.splitext(path)
    file = path if suffix == RESUME_SUFFIX else (stem if suffix == ".pdparams" else path) + RESUME_SUFFIX
    if not os.path.exists(file):
        raise UserError(f"-r {path}: no resume file {file}")
    state = read_tensors(file, keep_tensors=True)
    if not isinstance(state, dict) or type(state.get("format")) is not int or state["format"] != _FORMAT:
        raise UserError(f"{file}: not a resume file that this version of ppkd wrote")
    return state


def admitted(state, file):
    """`state`, if it has what a run goes on from.

    Args:
        file: it was read from, for messages.

    Raises:
        UserError: it is none of this format, or a part is of another kind than was ever written.
    """
    for key, kind in _KINDS.items():
        if not isinstance(state.get(key), kind) or isinstance(state.get(key), bool):
            raise UserError(f"{file}: {key} in it is no {key} of a run: {_shown(state.get(key))}")
    if min(state[key] for key in ("epoch", "batch", "step")) < 0:
        raise UserError(f"{file}: a run does not stand before its beginning")
    if not all(isinstance(key, str) for key in state["digest"]):
        raise UserError(f"{file}: digest in it is no digest of a run")
    name = state.get("to_evaluate", "")
    if name is not None and (not isinstance(name, str) or name == "" or safe_name(name) != name):
        raise UserError(f"{file}: to_evaluate in it is no name of a snapshot: {_shown(name)}")
    return state


def _shown(value):
    return repr(value)[:80] if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"


def load_newest(folder):
    """The state of the newest resume file of a folder that can be read, for ``--resume auto``: that of most steps.

    Returns:
        The state, or None if there is no resume file.

    Raises:
        UserError: there are resume files, and none can be read.
    """
    files = [path for path in glob.glob(os.path.join(glob.escape(folder), "*" + RESUME_SUFFIX)) if os.path.isfile(path)]
    for file in sorted(files, key=_age, reverse=True):
        try:
            state = load(file)
        except UserError as error:
            logger().warning("%s; trying the one before", error)
            continue
        logger().info("resuming from %s", file)
        return state
    if files:
        raise UserError(f"--resume auto: no resume file of {folder} can be read; a new run needs another save_dir")
    return None


def _age(path):
    """What sorts resume files by how far the run was; a clock may be put back, and copied files have other times."""
    place = _place(path)
    return *(place.get(key, -1) for key in _PLACE), os.stat(path).st_mtime_ns, path


def _place(path):
    """The numbers of `_PLACE` in a resume file, of which no more than the beginning is looked at, and nothing run."""
    found, name = {}, None
    with contextlib.suppress(OSError), open_file(path, "rb") as file:
        begin = file.read(_BEGIN)
        try:
            for _, value, _ in pickletools.genops(begin):
                if name in _PLACE and type(value) is int:
                    found.setdefault(name, value)
                name = value if isinstance(value, str) else None if value is not None else name
        except ValueError:  # where the beginning ends
            pass
    return found
