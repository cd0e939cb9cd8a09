"""COCO itself, in the folders that Roboflow, CVAT and others make of it: names of images and of splits differ."""

from collections import Counter

from ppkd.bridge.coco import flag, whole
from ppkd.errors import UserError
from ppkd.importing.source import Shape, declared, files, label, number, read_json

_KEYS = ("images", "annotations", "categories")


def finds(folder):
    """Whether a folder has a JSON file of COCO's."""
    return any(_is_one(read_json(path)) for path in files(folder, ".json"))


def read(source):
    """Fill a `source.Source`."""
    names, paths = {}, [path for path in files(source.folder, ".json") if _is_one(read_json(path))]
    source.images.annotated_by(paths)
    for path in paths:
        content = read_json(path)
        try:
            categories = {_key(entry["id"]): label(entry["name"], path) for entry in content["categories"]}
            used = {_key(entry["category_id"]) for entry in content["annotations"]}
            by_image = {_key(entry["id"]): [] for entry in content["images"]}
            if len(by_image) < len(content["images"]):
                raise UserError(f"{path}: two images have one id, so that each would have the boxes of both")
            if len(categories) < len(content["categories"]):
                raise UserError(f"{path}: two categories have one id, so that nothing says which of them a box is")
            for entry in content.pop("annotations"):
                by_image[_key(entry["image_id"])].append(_shape(entry, categories, path, source))
            for entry in content["images"]:
                shapes = [shape for shape in by_image.pop(_key(entry["id"])) if shape is not None]
                size = declared(entry.get("width"), entry.get("height"), f"{path}: {entry['file_name']}")
                source.add(entry["file_name"], shapes, path, size=size)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not in COCO's format: {type(error).__name__}: {error}") from None
        names |= dict.fromkeys(name for key, name in categories.items() if key in used)
        # A category that no box of one split uses may be one of another's.
        for name in categories.values():
            source.dropped[f"category {name!r}, which no box uses"] = 1
        for name, count in Counter(categories.values()).items():
            if count > 1:
                source.dropped[f"categories that are called {name!r}: they become one class"] = count
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
    """An annotation as training and evaluation read it (`ppkd.bridge.coco`)."""
    box, where = entry.get("bbox"), f"{path}: annotation {entry.get('id')}"
    if box is None or box == []:
        if (box := _around(entry.get("segmentation"), where)) is None:
            source.dropped["annotations without a box"] += 1
            return None
        source.dropped["annotations without a box: that around their outline is taken"] += 1
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox has to be four numbers, x, y, width and height, found {str(box)[:80]}")
    x, y, w, h = (number(n, where, "bbox") for n in box)
    if w <= 0 or h <= 0:
        source.dropped["boxes without area"] += 1
        return None
    flags = {key: entry.get(key) for key in ("iscrowd", "ignore")}
    for key, value in flags.items():
        flags[key] = int(bool(value)) if type(value) is int else flag(value)
        if flags[key] is None:
            raise UserError(f"{where}: {key} has to be 0 or 1, found {value!r:.40}")
    more = {"iscrowd": flags["iscrowd"], "segmentation": entry.get("segmentation") or []}
    if flags["ignore"]:
        source.dropped["boxes with `ignore`, which they keep: training leaves them out"] += 1
        more["ignore"] = 1
    if entry.get("area") is not None:
        more["area"] = number(entry["area"], where, "area")
        source.dropped["boxes with an `area` of 0, which they keep: training leaves them out"] += more["area"] <= 0
    return Shape(categories[_key(entry["category_id"])], [(x, y), (x + w, y + h)], False, more)


def _around(outlines, where):
    """The box around polygons; None without any."""
    if not isinstance(outlines, list) or not outlines:
        return None
    parts = outlines if isinstance(outlines[0], list) else [outlines]
    parts = [part for part in parts if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]
    xs = [number(x, where, "segmentation") for part in parts for x in part[::2]]
    ys = [number(y, where, "segmentation") for part in parts for y in part[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)] if parts else None
