"""YOLO: a text file an image, in shares of its size, and ``data.yaml`` with names and splits."""

import os

from ppkd.errors import UserError
from ppkd.files.class_names import checked
from ppkd.files.yaml_io import read_yaml
from ppkd.importing.source import SPLITS, Shape, files, number, read_text, split_of

_EDGE = 1.01  # rounding, and boxes that reach a little beyond the edge


def finds(folder):
    """Whether a folder has a ``data.yaml`` with names, or a ``classes.txt``."""
    return _yaml(folder) is not None or bool(_classes(folder))


def read(source):
    """Fill a `source.Source`."""
    path = _yaml(source.folder)
    if path is not None:
        content = read_yaml(path)
        source.names = checked(content.get("names"), f"{path}: names")
    elif lists := _classes(source.folder):
        content, path = {}, lists[0]
        source.names = checked([line.strip() for line in read_text(path).splitlines() if line.strip()], path)
    else:
        raise UserError(f"{source.folder}: no data.yaml with `names:` and no classes.txt, so classes have no names")
    splits = _splits(content, path, source.images)
    labels = {os.path.realpath(name): name for name in files(source.folder, ".txt")}
    without = 0
    for image in source.images.paths:
        split = splits.get(image) if splits else split_of(image, source.folder)
        if splits and split is None:
            source.dropped["images that data.yaml does not list"] += 1
            continue
        found = next((labels[p] for p in _places(image) if p in labels), None)
        without += found is None
        rows = [] if found is None else _rows(found, source, bool(content.get("kpt_shape")))
        source.pictures.append(_picture(image, rows, split, found or path))
    if without == len(source.images.paths):
        raise UserError(f"{source.folder}: none of {without} images has a label file (labels/NAME.txt, or beside it)")
    source.dropped["images without a label file, taken as background"] += without


def _picture(image, rows, split, where):
    from ppkd.importing.source import Picture

    def shapes(width, height):
        return [Shape(name, [(x * width, y * height) for x, y in points], polygon) for name, points, polygon in rows]

    return Picture(image, shapes, split, where)


def _rows(path, source, poses):
    """``(name, points as shares, whether they are a polygon)`` of each line; of poses a box, with points behind it."""
    rows = []
    for place, line in enumerate(read_text(path).splitlines(), 1):
        words, where = line.split(), f"{path}:{place}"
        if not words:
            continue
        index, *values = (number(word, where, "each word of a line") for word in words)
        if index != int(index) or not 0 <= index < len(source.names):
            raise UserError(f"{where}: class {index:g}, and there are names for 0 to {len(source.names) - 1}")
        name = source.names[int(index)]
        if poses and len(values) > 4:
            source.dropped["keypoints behind boxes"] += 1
            values = values[:4]
        if any(value < 1 - _EDGE or value > _EDGE for value in values[: len(values) // 2 * 2]):
            raise UserError(f"{where}: shares of width and height are 0 to 1, found {max(values, key=abs):g}")
        if len(values) == 5:
            source.dropped["scores behind boxes, as detections have them"] += 1
        if len(values) in (4, 5):
            cx, cy, w, h = values[:4]
            rows.append((name, [(cx - w / 2, cy - h / 2), (cx + w / 2, cy + h / 2)], False))
        elif len(values) >= 6 and len(values) % 2 == 0:
            rows.append((name, list(zip(values[::2], values[1::2])), True))
        else:
            raise UserError(f"{where}: {len(words)} numbers: a class and a box are 5, a class and a polygon 7, 9, ...")
    return rows


def _places(image):
    """Where an image's labels may lie: beside it, or in ``labels`` in place of ``images``."""
    stem = os.path.splitext(os.path.realpath(image))[0]
    parts = stem.split(os.sep)
    places = [stem]
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            places.insert(0, os.sep.join([*parts[:at], "labels", *parts[at + 1 :]]))
    folder, name = os.path.split(stem)
    return [place + ".txt" for place in (*places, os.path.join(folder, "labels", name))]


def _splits(content, path, images):
    """Image -> split by a ``data.yaml``, whose paths are often those of another machine; empty if it says none."""
    found, root, agreed = {}, os.path.dirname(path), {}
    for key, split in SPLITS.items():
        entries = content.get(key) or []
        for entry in [entries] if isinstance(entries, str) else entries:
            entry = str(entry).replace("\\", "/")
            if entry.endswith(".txt"):
                listed = os.path.join(root, os.path.basename(entry))
                for line in read_text(listed).split():
                    if (image := images.find(line, listed)) is not None:
                        found[image] = split
                continue
            ours = [part for part in entry.split("/") if part not in ("", ".", "..")]
            for image in images.paths:
                parts = os.path.relpath(os.path.dirname(image), root).split(os.sep)
                if (agreement := _within(parts, ours)) > agreed.get(image, -1):
                    found[image], agreed[image] = split, agreement
    return found


def _within(parts, wanted):
    """How many folders say that a folder is the wanted one or below it; any beginning of the wanted path may be another
    machine's, so that its end counts. -1 says that it is not; a wanted one without a name holds all."""
    tails = (wanted[at:] for at in range(len(wanted)))
    return next((len(tail) for tail in tails if parts[: len(tail)] == tail), -1 if wanted else 0)


def _yaml(folder):
    for path in files(folder, ".yaml", ".yml"):
        if "names" in read_yaml(path):
            return path
    return None


def _classes(folder):
    return [path for path in files(folder, ".txt") if os.path.basename(path) in ("classes.txt", "obj.names")]
