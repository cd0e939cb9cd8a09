"""Pascal VOC: an XML file an image, and lists of names in ``ImageSets/Main``."""

import math
import os
import re

from ppkd.importing.images import stem_of
from ppkd.importing.source import Shape, declared, files, label, number, read_text, read_xml, turned

_LISTS = {"train": "train", "val": "val", "test": "test"}


def finds(folder):
    """Whether a folder has XML files of VOC's."""
    return any(read_xml(path).tag == "annotation" for path in files(folder, ".xml"))


def read(source):
    """Fill a `source.Source`."""
    # Not all are held: each takes a hundred times what is in it.
    paths = [path for path in files(source.folder, ".xml") if read_xml(path).tag == "annotation"]
    source.images.annotated_by(paths, each=True)
    splits = _splits(source, paths)
    for path in paths:
        root = read_xml(path)
        shapes = [shape for entry in root.iter("object") for shape in _shape(entry, path, source)]
        wanted = os.path.join(root.findtext("folder") or "", root.findtext("filename") or stem_of(path))
        size = declared(root.findtext("size/width"), root.findtext("size/height"), path)
        source.add_own(wanted, shapes, path, splits.get(path), size)


def _shape(entry, path, source):
    name = label(entry.findtext("name"), path)
    if (box := entry.find("robndbox")) is not None:  # roLabelImg's: centre, size, angle in radians
        cx, cy, w, h, angle = (number(box.findtext(k), path, k) for k in ("cx", "cy", "w", "h", "angle"))
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


def _splits(source, paths):
    """XML file -> split, by the lists in ``ImageSets/Main``: a name a line, in lists of a class 1, 0, -1 behind."""
    found = {}
    for listed in files(source.folder, ".txt"):
        split, main = _LISTS.get(stem_of(listed)), os.path.dirname(listed)
        if not split or os.path.basename(main) != "Main":
            continue
        root = os.path.join(os.path.dirname(os.path.dirname(main)), "")
        ours = {stem_of(path): path for path in paths if path.startswith(root)}
        lines = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
        # A name may end in a number as well: what is right for more lines is meant.
        readings = (lines, [re.sub(r"\s+-?[01]$", "", line) for line in lines], [stem_of(line) for line in lines])
        for name in max(readings, key=lambda names: sum(name in ours for name in names)):
            if name not in ours:
                source.dropped["names in ImageSets without an XML file"] += 1
                continue
            if found.setdefault(ours[name], split) != split:
                source.dropped["images in lists of several splits: the first of test, train, val is taken"] += 1
    return found
