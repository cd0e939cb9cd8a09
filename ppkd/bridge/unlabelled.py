"""Photographs without labels: a folder, a list of paths or a COCO file names them."""

import os
from dataclasses import dataclass

import numpy as np

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.between import same_files
from ppkd.bridge.images import ENDINGS
from ppkd.errors import UserError
from ppkd.files.paths import Folder
from ppkd.files.regular import open_file
from ppkd.terminal.log import logger

# Under which a batch has, as a batch of its own, the images without labels beside it.
KEY = "ppkd_unlabelled"


@dataclass(frozen=True)
class Photographs:
    """Images without labels.

    Attributes:
        folder: which the names are relative to.
        names: sorted where they are of a folder, else in the order of the list; each image once, however it is spelled.
    """

    folder: str
    names: tuple

    @property
    def paths(self):
        """Paths of the images."""
        return [os.path.join(self.folder, name) for name in self.names]


def find_photographs(given, where, image_dir=None, allow_outside=False):
    """The `Photographs` that a user names.

    Args:
        given: a folder, which is looked through with all that are below it, links followed and hidden ones left out; a
            ``.txt`` file with a path a line; or a ``.json`` file in COCO's format, whose annotations, if there are any,
            are not looked at.
        where: the option or key, for messages.
        image_dir: the folder that a file's names are relative to; None for the first that has one of them: the file's
            own, ``images`` in it or beside it (as beside ``annotations``), the folder above.
        allow_outside: whether a file may name images beyond that folder.

    Raises:
        UserError: nothing of that name, no image in it, a folder in it that cannot be looked into, none of those that
            a file names there, or names that lead out of the folder.
    """
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise UserError(f"{where} has to be an image folder, a .txt list or a COCO .json file, found {given!r}")
    given = os.path.expanduser(os.fspath(given))
    if os.path.isdir(given):
        if image_dir is not None:
            raise UserError(f"{where}: image_dir goes with a .txt or .json file; {given} is a folder")
        names = tuple(_below(given, where))
        if not names:
            raise UserError(f"{where}: {given}: no image in it or below it ({', '.join(ENDINGS)})")
        return Photographs(given, names)
    if not os.path.exists(given):
        raise UserError(f"{where}: {given}: no such folder or file")
    if not given.lower().endswith((".txt", ".json")):
        raise UserError(f"{where}: {given}: give an image folder, a .txt file with a path a line, or a COCO .json file")
    listed = _of_coco(given) if given.lower().endswith(".json") else _of_list(given, where)
    names = tuple(dict.fromkeys(listed))
    if not names:
        raise UserError(f"{where}: {given}: names no image")
    looked = _folders(given, image_dir, where)
    found = [folder for folder in looked if any(os.path.isfile(os.path.join(folder, name)) for name in names)]
    folder = (found or looked)[0]
    names = _each_once(names, folder)
    if len(names) < len(listed):
        logger().warning("%s: %d images of %s are named more than once", where, len(listed) - len(names), given)
    inside = Folder(folder)
    outside = [name for name in names if not allow_outside and not inside.holds(os.path.join(folder, name))]
    if outside:
        raise UserError(
            f"{where}: {len(outside)} of {len(names)} names in {given} lead out of {folder}, the first is {outside[0]}"
            "; if that is as you want it, set -o allow_outside=true"
        )
    if not found:
        raise UserError(
            f"{where}: {given}: none of the {len(names)} images that it names is there, the first is {names[0]}; "
            f"looked in {', '.join(looked)}"
        )
    if folder != looked[0]:
        logger().info("%s: the images of %s are those in %s", where, given, folder)
    return Photographs(folder, names)


def dataset_of(photographs, fields):
    """ppdet's data set of photographs, each as an image without any box, which transforms know how to treat.

    Args:
        photographs: `Photographs`.
        fields: ``data_fields`` of the training set.
    """
    from ppdet.data.source.dataset import DetDataset

    dataset = DetDataset(data_fields=fields)
    dataset.roidbs = []
    for number, path in enumerate(photographs.paths):
        none = {"is_crowd": np.zeros((0, 1), "int32"), "gt_class": np.zeros((0, 1), "int32"),
                "gt_bbox": np.zeros((0, 4), "float32"), "gt_poly": []}  # fmt: skip
        given = {key: value for key, value in none.items() if key in fields}
        dataset.roidbs.append({"im_id": np.array([number]), "im_file": path, **given})
    return dataset


def refuse_validation_images(photographs, validated, where):
    """Refuse images that a detector is evaluated on, by content: it would be taught what it is asked.

    Args:
        photographs: paths.
        validated: paths of the validation set's images.
        where: the option or key.

    Raises:
        UserError: there are some.
    """
    found = list(same_files(validated, photographs))
    if found:
        first = " is ".join(found[0])
        raise UserError(
            f"{where}: {len(found)} of {len(photographs)} images are images of the validation set, by their content, "
            f"the first: {first}. AP would tell how well they are remembered: take them out"
        )


def _folders(given, image_dir, where):
    """Where the images that a file names may be, the likeliest first."""
    if image_dir is None:
        own = os.path.dirname(given) or "."
        return [own, *(os.path.normpath(os.path.join(own, more)) for more in ("images", "../images", ".."))]
    folder = os.path.expanduser(str(image_dir))
    if not os.path.isdir(folder):
        raise UserError(f"{where}: image_dir {folder}: no such folder")
    return [folder]


def _each_once(names, folder):
    """Names without those that are another spelling of one before: ``a.png``, ``./a.png`` and its absolute path."""
    places = {}
    for name in names:
        places.setdefault(os.path.abspath(os.path.join(folder, name)), name)
    return tuple(places.values())


def _below(folder, where):
    """Names of the images in a folder and those below it. Links to folders are followed, to each folder once."""

    def failed(error):  # without it a folder that cannot be read would be one without images
        raise UserError(f"{where}: {error.filename}: cannot be looked into: {error.strerror}") from None

    known = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, onerror=failed, followlinks=True):
        places = {name: os.path.realpath(os.path.join(here, name)) for name in folders if not name.startswith(".")}
        folders[:] = [name for name in sorted(places) if _is_new(places[name], known)]
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                yield os.path.relpath(os.path.join(here, name), folder)


def _is_new(place, known):
    """Whether a folder was not looked through yet; it is known from now on. Links may lead back, or to one twice."""
    return not (place in known or known.add(place))


def _of_list(path, where):
    try:
        with open_file(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: {path}: cannot be read: {error}") from None


def _of_coco(path):
    images = read_annotations(path, ("images",))["images"]
    named = isinstance(images, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("file_name"), str) for entry in images
    )
    if not named:
        raise UserError(f"{path}: not a COCO file: every entry of `images` needs a `file_name`")
    return [entry["file_name"] for entry in images]
