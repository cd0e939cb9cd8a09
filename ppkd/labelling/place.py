"""Where labels are written: over labels of before, and over nothing else."""

import contextlib
import fnmatch
import os

from PIL import Image

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.made_labels import made_labels
from ppkd.errors import UserError
from ppkd.files import lock

# PNG's key for what made a picture, and what it has of one that shows labels.
MADE_BY = {"Software": "ppkd label"}
# What a run has in its folder until it is finished, by the folders in there; files half written have a dot.
_OF_RUN = {"": (lock.FILE, "part_*.json", ".part_*.ppkd-*"), "detections": ("*.json", ".*.ppkd-*")}


def picture_of(output):
    """Path of the picture beside an annotation file."""
    return os.path.splitext(output)[0] + ".png"


def unfinished_of(output):
    """Path of the folder in which a run keeps what it has done until the annotation file is written."""
    return os.path.splitext(output)[0] + ".unfinished"


def remove_unfinished(folder):
    """Remove a run's folder. What is not of a run, and the folder then, stays."""
    with contextlib.suppress(OSError):
        for name, patterns in reversed(_OF_RUN.items()):
            here = os.path.join(folder, name)
            for entry in os.listdir(here) if os.path.isdir(here) else ():
                if any(fnmatch.fnmatchcase(entry, pattern) for pattern in patterns):
                    os.remove(os.path.join(here, entry))
            if os.path.isdir(here):
                os.rmdir(here)


def check_place(output):
    """Refuse to write labels, their picture and what a run keeps meanwhile over what people have made.

    Args:
        output: the annotation file.

    Raises:
        UserError: there is a file of that name, or of the picture's, that ``ppkd label`` has not written; in the place
            of its folder is a link, a file, or a folder with anything else in it.
    """
    if (strange := _strange(unfinished_of(output))) is not None:
        _refuse(output, strange)
    if os.path.lexists(output):
        if not _is_of_labels(output):
            _refuse(output, output)
    elif os.path.lexists(picture_of(output)) and not _shows_labels(picture_of(output)):
        _refuse(output, picture_of(output))


def _refuse(output, path):
    raise UserError(
        f"--output {output}: {path} is there already and is not of ppkd label, so nothing is written over it; give "
        "another name"
    )


def _strange(folder):
    """Path of what is in the place of a run's folder, or in it, and is not of a run; None if nothing is."""
    if not os.path.lexists(folder):
        return None
    for name, patterns in _OF_RUN.items():
        here = os.path.join(folder, name) if name else folder
        if os.path.lexists(here) and (os.path.islink(here) or not os.path.isdir(here)):
            return here
        for entry in os.listdir(here) if os.path.isdir(here) else ():
            inside = not name and entry in _OF_RUN
            if not inside and not any(fnmatch.fnmatchcase(entry, pattern) for pattern in patterns):
                return os.path.join(here, entry)
    return None


def _is_of_labels(path):
    try:
        content = read_annotations(path, ())
    except UserError:
        return False
    return isinstance(content, dict) and made_labels(content) is not None


def _shows_labels(path):
    try:
        with Image.open(path) as image:
            return MADE_BY.items() <= image.info.items()
    except (OSError, ValueError, SyntaxError):
        return False
