"""COCO itself, in the folders that Roboflow, CVAT and others make of it: names of images and of splits differ."""

from ppkd.bridge.coco import whole
from ppkd.errors import UserError
from ppkd.importing.source import Shape, files, label, number, read_json

_KEYS = ("images", "annotations", "categories")


def finds(folder):
    """Whether a folder has a JSON file of COCO's."""
    return any(_is_one(read_json(path)) for path in files(folder, ".json"))


def read(source):
    """Fill a `source.Source`."""
    names = {}
    for path in files(source.folder, ".json"):
        content = read_json(path)
        if not _is_one(content):
            continue
        try:
            categories = {_key(entry["id"]): label(entry["name"], path) for entry in content["categories"]}
            used = {_key(entry["category_id"]) for entry in content["annotations"]}
            by_image = {_key(entry["id"]): [] for entry in content["images"]}
            if len(by_image) < len(content["images"]):
                raise UserError(f"{path}: two images have one id, so that each would have the boxes of both")
            for entry in content["annotations"]:
                by_image[_key(entry["image_id"])].append(_shape(entry, categories, path, source))
            names |= dict.fromkeys(name for key, name in categories.items() if key in used)
            unused = [name for key, name in categories.items() if key not in used]
            for entry in content["images"]:
                shapes = [shape for shape in by_image[_key(entry["id"])] if shape is not None]
                source.add(entry["file_name"], shapes, path)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not in COCO's format: {type(error).__name__}: {error}") from None
        # A category that no box of one split uses may be one of another's.
        for name in unused:
            source.dropped[f"category {name!r}, which no box uses"] = 1
    for name in names:
        source.dropped.pop(f"category {name!r}, which no box uses", None)
    source.names = list(names) or None


def _is_one(content):
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)


def _key(given):
    """An id as what it means: a whole number, also where it is written as text or with a fraction."""
    number = whole(given)
    return given if number is None else number


def _shape(entry, categories, path, source):
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        source.dropped["annotations without a box"] += 1
        return None
    x, y, w, h = (number(n, path, "bbox") for n in box)
    if w <= 0 or h <= 0:
        source.dropped["boxes without area"] += 1
        return None
    more = {"iscrowd": int(bool(entry.get("iscrowd"))), "segmentation": entry.get("segmentation") or []}
    return Shape(categories[_key(entry["category_id"])], [(x, y), (x + w, y + h)], False, more)
