"""The data set of a course: COCO as it lies, or what `importing` makes of another format."""

import os
import statistics
from dataclasses import dataclass

from ppkd.bridge.annotation_file import category_names, read_annotations
from ppkd.bridge.unlabelled import find_photographs, refuse_validation_images
from ppkd.errors import UserError
from ppkd.terminal.log import logger

# The evaluation set is the first of these that is there.
_EVALUATED = ("val", "test")


@dataclass
class Data:
    """A data set in COCO's format.

    Attributes:
        keys: the short keys of a config that mean it (`own_data.KEYS`).
        train: number of training images.
        val: number of images that are evaluated on.
        side: median of the longer sides of the training images in pixels, or None where the file does not say.
        names: of the classes.
    """

    keys: dict
    train: int
    val: int
    side: float | None
    names: list

    @property
    def text(self):
        """In words."""
        size = f", {self.side:.0f} pixels" if self.side else ""
        names = ", ".join(self.names[:8]) + (", ..." if len(self.names) > 8 else "")
        return f"{self.train} training and {self.val} validation images{size}; {len(self.names)} classes: {names}"


def is_ready(folder):
    """Whether a folder is laid out as the configs take it: ``images/``, ``annotations/instances_SPLIT.json``."""
    return os.path.isdir(os.path.join(folder, "images")) and os.path.isfile(_file(folder, "train")) and _split(folder)


def make(folder, output):
    """Import a data set of whatever format into `output`, its images where they are.

    Raises:
        UserError: as `importing.convert.convert`.
    """
    from ppkd.importing.convert import convert, read

    pictures = read(folder)[0].pictures
    said = {picture.split for picture in pictures} - {None}
    # Without any word the importer draws a validation set; of a training set alone it would make none.
    val = "20%" if said and not said & set(_EVALUATED) else None
    logger().info(convert(folder, output, images="leave", val=val).splitlines()[0])


def opened(folder, source):
    """The `Data` in a folder that `is_ready`, or that `make` has made of `source`.

    Raises:
        UserError: annotation files that cannot be read, or of no image.
    """
    folder, images = os.path.abspath(folder), "images"
    if not os.path.isdir(os.path.join(folder, images)):
        images = os.path.abspath(source)
    split = _split(folder)
    if split is None:
        raise UserError(f"{folder}: no validation set: annotations/instances_val.json is not there")
    if split != "val":
        logger().warning("%s: there is no validation set, so AP is measured on the %s set", source, split)
    keys = {
        "dataset_dir": folder, "train_images": images, "train_annotations": f"annotations/{_name('train')}",
        "val_images": images, "val_annotations": f"annotations/{_name(split)}",
    }  # fmt: skip
    counts, sides = {}, []
    for part in ("train", split):
        entries = read_annotations(_file(folder, part), ("images",))["images"]
        counts[part] = len(entries) if isinstance(entries, list) else 0
        if not counts[part]:
            raise UserError(f"{_file(folder, part)}: lists no image")
        if part == "train":
            sides = [max(e["width"], e["height"]) for e in entries if isinstance(e, dict) and _has_size(e)]
    names = category_names(_file(folder, "train"))
    return Data(keys, counts["train"], counts[split], statistics.median(sides) if sides else None, names)


def unlabelled(given, data, batch):
    """What ``unlabelled:`` says of photographs without labels beside a data set.

    Args:
        given: as `unlabelled.find_photographs` takes it.
        data: `Data`.
        batch: images of a training batch.

    Raises:
        UserError: there are none, or some are images of the validation set.
    """
    found = find_photographs(given, "--unlabelled")
    file, folder = (os.path.join(data.keys["dataset_dir"], data.keys[f"val_{x}"]) for x in ("annotations", "images"))
    images = read_annotations(file, ("images",))["images"]
    names = [entry["file_name"] for entry in images if isinstance(entry, dict) and "file_name" in entry]
    refuse_validation_images(found.paths, [os.path.join(folder, str(name)) for name in names], "--unlabelled")
    logger().info("unlabelled: %d images; the teacher teaches from them as well", len(found.names))
    said = {"images": os.path.abspath(os.path.expanduser(given))}
    few = len(found.names) < batch
    return said | {"ratio": len(found.names) / batch} if few else said


def _split(folder):
    return next((split for split in _EVALUATED if os.path.isfile(_file(folder, split))), None)


def _name(split):
    return f"instances_{split}.json"


def _file(folder, split):
    return os.path.join(folder, "annotations", _name(split))


def _has_size(entry):
    return all(isinstance(entry.get(key), (int, float)) for key in ("width", "height"))
