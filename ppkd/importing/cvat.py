"""CVAT for images: one XML file with all images, and the labels in their order."""

from ppkd.importing.images import SPLITS
from ppkd.importing.source import Shape, declared, files, label, number, read_xml, turned

_KINDS = ("box", "polygon", "ellipse")


def finds(folder):
    """Whether a folder has an XML file of CVAT's."""
    return any(read_xml(path).tag == "annotations" for path in files(folder, ".xml"))


def read(source):
    """Fill a `source.Source`."""
    names, roots = [], {path: read_xml(path) for path in files(source.folder, ".xml")}
    roots = {path: root for path, root in roots.items() if root.tag == "annotations"}
    subsets = {image.get("subset") for root in roots.values() for image in root.iterfind("image")} - {None, ""}
    source.images.annotated_by(roots, subsets=subsets)
    for path, root in roots.items():
        names += [label(n.text, path) for n in root.iterfind(".//meta//labels/label/name")]
        source.dropped["tracks (use CVAT's export `for images`)"] += len(root.findall("track"))
        for image in root.iterfind("image"):
            shapes = [shape for entry in image for shape in _shape(entry, path, source)]
            subset, size = image.get("subset") or "", declared(image.get("width"), image.get("height"), path)
            source.add(image.get("name") or "", shapes, path, SPLITS.get(subset.lower()), size, subset or None)
            image.clear()  # an element takes a hundred times what is in it
    source.names = list(dict.fromkeys(names)) or None


def _shape(entry, path, source):
    if entry.tag not in _KINDS:
        source.dropped[f"shapes of the kind {entry.tag}"] += 1
        return []
    name = label(entry.get("label"), path)

    def value(key):
        return number(entry.get(key), path, key)

    if entry.tag == "polygon":
        pairs = [pair.split(",") for pair in (entry.get("points") or "").split(";") if pair]
        points = [tuple(number(n, path, "points") for n in pair) for pair in pairs]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            source.dropped["polygons with too few points"] += 1
            return []
        return [Shape(name, points, True)]
    if entry.tag == "ellipse":
        x, y, rx, ry = (value(key) for key in ("cx", "cy", "rx", "ry"))
        x1, y1, x2, y2 = x - rx, y - ry, x + rx, y + ry
    else:
        x1, y1, x2, y2 = (value(key) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = number(entry.get("rotation") or 0, path, "rotation")
    if angle:
        source.dropped["angles of boxes: the upright box around is taken"] += 1
        return [Shape(name, turned(x1, y1, x2 - x1, y2 - y1, angle, ((x1 + x2) / 2, (y1 + y2) / 2)), True)]
    return [Shape(name, [(x1, y1), (x2, y2)])]
