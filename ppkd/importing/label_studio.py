"""Label Studio: one JSON file with a list of tasks, in percent of an image's size."""

from urllib.parse import unquote

from ppkd.bridge.images import ENDINGS
from ppkd.errors import UserError
from ppkd.importing.images import split_of
from ppkd.importing.source import (
    MISSING,
    Picture,
    Shape,
    declared,
    files,
    label,
    number,
    packed,
    read_json,
    read_xml,
    turned,
    unpacked,
)

_KINDS = {"rectanglelabels": "rectangle", "polygonlabels": "polygon", "ellipselabels": "ellipse"}
# The last is that of files that were dropped in.
_IMAGE_KEYS = ("image", "img", "picture", "photo", "$undefined$")


def finds(folder):
    """Whether a folder has a JSON file of Label Studio's."""
    contents = (read_json(path) for path in files(folder, ".json"))
    return any(_is_one(content) or _is_min(content) for content in contents)


def read(source):
    """Fill a `source.Source`."""
    keys = _keys(source.folder)
    for path in files(source.folder, ".json"):
        tasks = read_json(path)
        if _is_min(tasks):
            raise UserError(f"{path}: is Label Studio's export `JSON-MIN`, and `JSON` is read: export it as that")
        if not _is_one(tasks):
            continue
        for task in tasks:
            where = f"{path}: task {task.get('id')}"
            if not isinstance(task.get("data"), dict):
                raise UserError(f"{where}: no `data`")
            given = [a for a in task.get("annotations") or task.get("completions") or [] if not a.get("was_cancelled")]
            if not given:
                source.dropped["tasks that nobody has annotated"] += 1
                continue
            told = "further annotations of a task: the ground truth, or else the first, is taken"
            source.dropped[told] += len(given) - 1
            taken = next((each for each in given if each.get("ground_truth")), given[0])
            entries = _paired(taken.get("result") or [])
            image = _image(task["data"], entries, keys, source.images, path, where)
            if image is None:
                source.dropped[MISSING] += 1
                continue
            results = [result for entry in entries if (result := _result(entry, where, source)) is not None]
            split, size = split_of(image, source.folder), _size(entries, where)
            source.pictures.append(Picture(image, _shapes(results), split, where, size))


def _is_one(content):
    keys = {"annotations", "completions", "data"}
    return isinstance(content, list) and bool(content) and all(isinstance(t, dict) and keys & t.keys() for t in content)


def _is_min(content):
    """Whether it is the export `JSON-MIN`: values of results without their tasks."""
    keys = {"annotation_id", "annotator"}
    return isinstance(content, list) and bool(content) and all(isinstance(t, dict) and keys <= set(t) for t in content)


def _paired(entries):
    """Results as one tag for shapes with labels gives them; two, ``Rectangle`` and ``Labels``, give two of one id."""
    labels = {e.get("id"): e["value"].get("labels") for e in entries if e.get("type") == "labels" and e.get("value")}
    shapes = {kind.removesuffix("labels") for kind in _KINDS}
    found = []
    for entry in entries:
        kind, names = entry.get("type"), labels.get(entry.get("id"))
        if kind in shapes and names:
            entry = entry | {"type": f"{kind}labels", "value": entry["value"] | {f"{kind}labels": names}}
        elif kind == "labels" and any(e.get("type") in shapes and e.get("id") == entry.get("id") for e in entries):
            continue
        found.append(entry)
    return found


def _keys(folder):
    """Name of an image in a labelling interface -> the key of a task's data that it shows, where one lies there."""
    views = [root for path in files(folder, ".xml") if (root := read_xml(path)).tag == "View"]
    images = [image for root in views for image in root.iter("Image")]
    return {image.get("name"): (image.get("value") or "").lstrip("$") for image in images}


def _image(data, entries, keys, images, path, where):
    """The image that a task's results are of; None if it is not there.

    Results name it as the labelling interface does, mostly by the key of the data. Where that does not help, it is what
    looks like an image's path: never another text, be it called like an image.
    """
    named = {entry.get("to_name") for entry in entries if entry.get("type") in _KINDS} - {None}
    if len(named) > 1:
        raise UserError(f"{where}: has boxes of several images, {', '.join(sorted(map(str, named)))}")
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    wanted = [keys.get(name, name) for name in named]
    by_key = [key for key in wanted if key in data] or [key for key in texts if key.lower() in _IMAGE_KEYS]
    by_key = by_key or [key for key, text in texts.items() if _looks_like_image(text)]
    found = {images.find(texts[key], path) for key in by_key if key in texts} - {None}
    if len(found) > 1:
        raise UserError(f"{where}: its data names several images, {', '.join(by_key)}; no result says which it is of")
    return found.pop() if found else None


def _looks_like_image(text):
    return unquote(text).split("?d=")[-1].split("?")[0].lower().endswith(ENDINGS) or text.lower().endswith(ENDINGS)


def _size(entries, where):
    """The size that results say; None where they do not, or say several."""
    given = {(e.get("original_width"), e.get("original_height")) for e in entries if e.get("type") in _KINDS}
    return declared(*given.pop(), where) if len(given) == 1 else None


def _result(entry, where, source):
    """``(name, kind, values in percent)``, or None for what is not taken."""
    kind = str(entry.get("type"))
    value = entry.get("value")
    if kind not in _KINDS or not isinstance(value, dict):
        source.dropped[f"results of the kind {kind}"] += 1
        return None
    names = value.get(kind) or []
    if len(names) != 1:
        source.dropped["results with no or several labels"] += 1
        return None
    kind, name = _KINDS[kind], label(names[0], where)
    if kind == "polygon":
        values = [[number(n, where, "points") for n in point] for point in value.get("points") or []]
        if len(values) < 3 or any(len(point) != 2 for point in values):
            source.dropped["polygons with too few points"] += 1
            return None
        return name, kind, values
    keys = ("x", "y", "width", "height") if kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
    values = [number(value.get(key), where, key) for key in keys]
    if kind == "ellipse":
        x, y, rx, ry = values
        values = [x - rx, y - ry, 2 * rx, 2 * ry]
    angle = number(value.get("rotation") or 0, where, "rotation")
    if angle:
        source.dropped["angles of boxes: the upright box around is taken"] += 1
    return name, kind, [*values, angle]


def _shapes(results):
    results = packed(results)

    def shapes(width, height):
        found = []
        for name, kind, values in unpacked(results):
            if kind == "polygon":
                found.append(Shape(name, [(x * width / 100, y * height / 100) for x, y in values], True))
                continue
            *box, angle = values
            x, y, w, h = (v * side / 100 for v, side in zip(box, (width, height, width, height)))
            # A rectangle turns about its upper left corner, an ellipse about its centre.
            around = (x, y) if kind == "rectangle" else (x + w / 2, y + h / 2)
            corners = turned(x, y, w, h, angle, around) if angle else [(x, y), (x + w, y + h)]
            found.append(Shape(name, corners, bool(angle)))
        return found

    return shapes
