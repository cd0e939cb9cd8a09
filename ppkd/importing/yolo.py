"""YOLO: a text file an image, in shares of its size, and ``data.yaml`` with names and splits."""

import os
import re

from ppkd.errors import UserError
from ppkd.files.class_names import checked, names_in
from ppkd.files.yaml_io import read_yaml
from ppkd.importing.images import SPLITS, split_of, stem_of
from ppkd.importing.source import Picture, Shape, files, number, packed, read_text, unpacked

_FOLDERS = ("labels", "Labels", "LABELS")  # in place of ``images``, in capitals or not
_FAR = 0.1  # beyond the edge, as share of the image: what is less is cut off there


def finds(folder):
    """Whether a folder has a ``data.yaml`` with names, a ``classes.txt``, or Darknet's ``obj.names``."""
    return bool(_yamls(folder) or _classes(folder))


def read(source):
    """Fill a `source.Source`."""
    if yamls := _yamls(source.folder):
        path = yamls[0]
        content, source.names = read_yaml(path), _agreed(yamls, names_in)
        if isinstance(count := content.get("nc"), int) and count != len(source.names):
            raise UserError(f"{path}: nc says {count} classes, and `names` are {len(source.names)}; write them alike")
    elif lists := _classes(source.folder):
        source.names, (content, path) = _agreed(lists, _lines), _darknet(source.folder) or ({}, lists[0])
    else:
        raise UserError(f"{source.folder}: no data.yaml with `names:`, classes.txt or obj.names: classes have no names")
    splits = _splits(content, path, source)
    labels = {os.path.realpath(name): name for name in files(source.folder, ".txt")}
    without, used = 0, {}
    for image in source.images.paths:
        split = splits.get(image) if splits else split_of(image, source.folder)
        found = next((labels[p] for p in _places(image) if p in labels), None)
        if used.setdefault(found, image) != image and found is not None:
            source.dropped["images whose label file is another's as well, of the same name: both have its boxes"] += 1
        if splits and split is None:
            source.dropped[f"images that {os.path.basename(path)} does not list"] += 1
            continue
        without += found is None
        rows = [] if found is None else _rows(found, source, bool(content.get("kpt_shape")))
        source.pictures.append(_picture(image, rows, split, found or path))
    if without == len(source.images.paths):
        raise UserError(f"{source.folder}: none of {without} images has a label file (labels/NAME.txt, or beside it)")
    source.dropped["images without a label file, taken as background"] += without
    folders = {os.path.dirname(name) for name in used if name is not None}
    alone = [name for name in labels.values() if name not in used and os.path.dirname(name) in folders]
    source.dropped["label files without an image"] += sum(_is_label(name) for name in alone)


def _picture(image, rows, split, where):
    rows = packed(rows)

    def shapes(width, height):
        found = unpacked(rows)
        return [Shape(name, [(x * width, y * height) for x, y in points], polygon) for name, points, polygon in found]

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
        far = max(values[: len(values) // 2 * 2], key=lambda value: abs(value - 0.5), default=0.5)
        if abs(far - 0.5) > 0.5 + _FAR:
            raise UserError(f"{where}: shares of width and height are 0 to 1, found {far:g}")
        if len(values) in (4, 5) and min(values[2:4]) < 0:
            raise UserError(f"{where}: a width or height is below 0, found {min(values[2:4]):g}")
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


def _is_label(path):
    """Whether a text file is of boxes, not of names or of images."""
    words = read_text(path).split("\n", 1)[0].split()
    return len(words) >= 5 and all(re.fullmatch(r"[\d.e+-]+", word) for word in words)


def _places(image):
    """Where an image's labels may lie: beside it, or in ``labels`` in place of ``images``."""
    stem = os.path.splitext(os.path.realpath(image))[0]
    parts = stem.split(os.sep)
    places = [stem]
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() == "images":
            places[:0] = [os.sep.join([*parts[:at], name, *parts[at + 1 :]]) for name in _FOLDERS]
    folder, name = os.path.split(stem)
    return [place + ".txt" for place in (*places, os.path.join(folder, "labels", name))]


def _splits(content, path, source):
    """Image -> split by a ``data.yaml``, whose paths are often those of another machine; empty if it says none."""
    found, images, root, agreed = {}, source.images, os.path.dirname(path), {}
    given = {key: content.get(key) or [] for key in SPLITS}
    given = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
    entries = [(entry, SPLITS[key]) for key, value in given.items() for entry in value]
    if odd := [entry for entry, _ in entries if not isinstance(entry, str)]:
        raise UserError(f"{path}: train, val and test have to be paths or lists of paths, found {odd[0]!r}")
    entries = [(entry.replace("\\", "/"), split) for entry, split in entries]
    lists = {entry: _list(root, entry) for entry, _ in entries if entry.endswith(".txt")}
    images.annotated_by(dict.fromkeys(lists.values()))
    for entry, split in entries:
        if entry in lists:
            for line in filter(None, map(str.strip, read_text(lists[entry]).splitlines())):
                image = images.find(line, lists[entry])
                if image is None or (image, lists[entry]) in images.borrowed:
                    source.dropped["listed images that are not there"] += 1
                elif found.setdefault(image, split) != split:
                    source.dropped[f"images that are listed for {split} and for {found[image]}, which is taken"] += 1
            continue
        ours = [part for part in entry.split("/") if part not in ("", ".", "..")]
        for image in images.paths:
            parts = os.path.relpath(os.path.dirname(image), root).split(os.sep)
            if (agreement := _within(parts, ours)) > agreed.get(image, -1):
                found[image], agreed[image] = split, agreement
    for entry, split in entries:
        if split not in found.values():
            source.dropped[f"path of {os.path.basename(path)} without an image: {split}: {entry}"] = 1
    return found


def _list(root, entry):
    """A list of images, of whose path any beginning may be another machine's."""
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    tails = [os.path.join(root, *parts[at:]) for at in range(len(parts))]
    return next((path for path in tails if os.path.isfile(path)), tails[-1])


def _within(parts, wanted):
    """How many folders say that a folder is the wanted one or below it; any beginning of the wanted path may be another
    machine's, so that its end counts. -1 says that it is not; a wanted one without a name holds all."""
    tails = (wanted[at:] for at in range(len(wanted)))
    return next((len(tail) for tail in tails if parts[: len(tail)] == tail), -1 if wanted else 0)


def _yamls(folder):
    return [path for path in files(folder, ".yaml", ".yml") if "names" in read_yaml(path)]


def _classes(folder):
    return [path for path in files(folder, ".txt", ".names") if path.endswith(".names") or stem_of(path) == "classes"]


def _agreed(paths, names_of):
    """The names that all files say.

    Raises:
        UserError: one says others, or another order: then the number of a class has several meanings.
    """
    names = names_of(paths[0])
    for path in paths[1:]:
        if names_of(path) != names:
            raise UserError(
                f"{path}: names other classes than {paths[0]}, or in another order; keep the one that is right"
            )
    return names


def _lines(path):
    """The names in a file with one a line.

    Raises:
        UserError: a line between them is empty, so that it is not clear whether it counts; there is none.
    """
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        raise UserError(f"{path}:{lines.index('') + 1}: an empty line between names: is it a class? Name or remove it")
    return checked(lines, path)


def _darknet(folder):
    """``(splits as a data.yaml has them, path)`` of Darknet's ``obj.data``; None without one."""
    for path in files(folder, ".data"):
        pairs = [line.partition("=") for line in read_text(path).splitlines()]
        content = {key.strip(): value.strip() for key, equal, value in pairs if equal}
        if "names" in content:
            return content, path
    return None
