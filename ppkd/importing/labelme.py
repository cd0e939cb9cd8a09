"""LabelMe: a JSON file an image, with ``shapes`` of points."""

import math

from ppkd.errors import UserError
from ppkd.importing.source import Shape, declared, files, label, number, read_json

_FEWEST = {"rectangle": 2, "polygon": 3, "circle": 2}


def finds(folder):
    """Whether a folder has JSON files of LabelMe's."""
    return any(_is_one(read_json(path)) for path in files(folder, ".json"))


def read(source):
    """Fill a `source.Source`."""
    paths = files(source.folder, ".json")
    source.images.annotated_by(paths, each=True)
    for path in paths:
        content = read_json(path)
        if not _is_one(content):
            source.dropped["JSON files that are not LabelMe's"] += 1
            continue
        shapes = [shape for entry in content["shapes"] for shape in _shape(entry, path, source)]
        size = declared(content.get("imageWidth"), content.get("imageHeight"), path)
        source.add_own(content["imagePath"], shapes, path, size=size)


def _is_one(content):
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def _shape(entry, path, source):
    if not isinstance(entry, dict):
        raise UserError(f"{path}: a shape has to be a mapping, found {entry!r}")
    kind = entry.get("shape_type") or "polygon"
    if kind not in _FEWEST:
        source.dropped[f"shapes of the kind {kind}"] += 1
        return []
    name, given = label(entry.get("label"), path), entry.get("points")
    if not isinstance(given, list) or any(not isinstance(p, (list, tuple)) or len(p) != 2 for p in given):
        raise UserError(f"{path}: points have to be a list of [x, y], found {str(given)[:80]}")
    points = [tuple(number(n, path, "a coordinate") for n in point) for point in given]
    if len(points) < _FEWEST[kind]:
        source.dropped[f"shapes of the kind {kind} with too few points"] += 1
        return []
    if kind == "circle":
        (x, y), radius = points[0], math.dist(*points[:2])
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    return [Shape(name, points, kind == "polygon" or len(points) == 4)]
