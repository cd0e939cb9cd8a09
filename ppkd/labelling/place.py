"""Where labels are written: over labels of before, and over nothing else."""

import os

from PIL import Image

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.made_labels import made_labels
from ppkd.errors import UserError

# PNG's key for what made a picture, and what it has of one that shows labels.
MADE_BY = {"Software": "ppkd label"}


def picture_of(output):
    """Path of the picture beside an annotation file."""
    return os.path.splitext(output)[0] + ".png"


def check_place(output):
    """Refuse to write labels and their picture over what people have made.

    Args:
        output: the annotation file.

    Raises:
        UserError: there is a file of that name, or of the picture's, that ``ppkd label`` has not written.
    """
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
