"""Pascal VOC: an XML file an image, and lists of names in ``ImageSets/Main``."""

import math
import os

from ppkd.importing.source import Shape, files, label, number, read_text, read_xml

_LISTS = {"train": "train", "val": "val", "test": "test"}


def finds(folder):
    """Whether a folder has XML files of VOC's."""
    return any(read_xml(path).tag == "annotation" for path in files(folder, ".xml")[:3])


def read(source):
    """Fill a `source.Source`."""
    lists = _lists(source.folder)
    for path in files(source.folder, ".xml"):
        root = read_xml(path)
        if root.tag != "annotation":
            continue
        stem = os.path.splitext(os.path.basename(path))[0]
        shapes = [shape for entry in root.iter("object") for shape in _shape(entry, path, source)]
        wanted = root.findtext("filename") or stem
        folder = root.findtext("folder") or ""
        wanted = os.path.join(folder, wanted) if source.images.find(wanted, path) else stem
        source.add(wanted, shapes, path, lists.get(stem))


def _shape(entry, path, source):
    name = label(entry.findtext("name"), path)
    if (box := entry.find("robndbox")) is not None:  # roLabelImg's: centre, size, angle in radians
        cx, cy, w, h, angle = (number(box.findtext(k), path, k) for k in ("cx", "cy", "w", "h", "angle"))
        from ppkd.importing.source import turned

        source.dropped["angles of boxes: the upright box around is taken"] += 1
        return [Shape(name, turned(cx - w / 2, cy - h / 2, w, h, math.degrees(angle), (cx, cy)), True)]
    box = entry.find("bndbox")
    if box is None:
        source.dropped["objects without a bndbox"] += 1
        return []
    x1, y1, x2, y2 = (number(box.findtext(k), path, k) for k in ("xmin", "ymin", "xmax", "ymax"))
    if x2 <= x1 or y2 <= y1:
        source.dropped["boxes without area"] += 1
        return []
    if (entry.findtext("difficult") or "0").strip() == "1":
        source.dropped["marks `difficult`: such boxes are taken as any other"] += 1
    return [Shape(name, [(x1, y1), (x2, y2)])]


def _lists(folder):
    found = {}
    for path in files(folder, ".txt"):
        split = _LISTS.get(os.path.splitext(os.path.basename(path))[0])
        if split and os.path.basename(os.path.dirname(path)) == "Main":
            found |= {line.split()[0]: split for line in read_text(path).splitlines() if line.strip()}
    return found
