"""Label Studio: one JSON file with a list of tasks, in percent of an image's size."""

from ppkd.errors import UserError
from ppkd.importing.source import Picture, Shape, files, label, number, read_json, split_of, turned

_KINDS = {"rectanglelabels": "rectangle", "polygonlabels": "polygon", "ellipselabels": "ellipse"}


def finds(folder):
    """Whether a folder has a JSON file of Label Studio's."""
    return any(_is_one(read_json(path)) for path in files(folder, ".json")[:3])


def read(source):
    """Fill a `source.Source`."""
    for path in files(source.folder, ".json"):
        tasks = read_json(path)
        if not _is_one(tasks):
            continue
        for task in tasks:
            where = f"{path}: task {task.get('id')}"
            if not isinstance(task.get("data"), dict):
                raise UserError(f"{where}: no `data`; of Label Studio's exports `JSON` is read, not `JSON-MIN`")
            given = [a for a in task.get("annotations") or task.get("completions") or [] if not a.get("was_cancelled")]
            if not given:
                source.dropped["tasks that nobody has annotated"] += 1
                continue
            source.dropped["second annotations of a task: the first is taken"] += len(given) - 1
            texts = [value for value in task["data"].values() if isinstance(value, str)]
            image = next((found for text in texts if (found := source.images.find(text, path))), None)
            if image is None:
                source.dropped["annotated images that are not there"] += 1
                continue
            results = [_result(entry, where, source) for entry in given[0].get("result") or []]
            results = [result for result in results if result is not None]
            source.pictures.append(Picture(image, _shapes(results), split_of(image, source.folder), where))


def _is_one(content):
    keys = {"annotations", "completions", "data"}
    return isinstance(content, list) and bool(content) and all(isinstance(t, dict) and keys & t.keys() for t in content)


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
    def shapes(width, height):
        found = []
        for name, kind, values in results:
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
