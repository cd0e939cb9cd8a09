"""What a reader makes of a data set, and what all readers share: finding images, text, XML and JSON of anyone."""

import os
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from xml.parsers import expat

from ppkd.bridge.annotation_file import parsed
from ppkd.bridge.images import ENDINGS
from ppkd.errors import UserError
from ppkd.files.regular import open_file

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Shape:
    """An object in an image, in pixels.

    Attributes:
        label: name of its class.
        points: corners of a polygon, or two corners of a box: ``[(x, y), ...]``.
        polygon: whether the points are a polygon.
        more: keys of COCO that are kept as they are (``iscrowd``, ``segmentation``).
    """

    label: str
    points: list
    polygon: bool = False
    more: dict = field(default_factory=dict)


@dataclass
class Picture:
    """An image and what is in it.

    Attributes:
        path: the file.
        shapes: list of `Shape`, or a function of width and height that gives it, where a format has shares of these.
        split: ``train``, ``val``, ``test`` or None, where the format does not say.
        where: the file that says it, for messages.
    """

    path: str
    shapes: object
    split: str | None
    where: str


@dataclass
class Source:
    """A data set.

    Attributes:
        folder: where it lies.
        images: `Images` in it.
        pictures: list of `Picture`.
        names: of its classes in their order, or None where the format has no order.
        dropped: what is not taken over -> number.
    """

    folder: str
    images: object
    pictures: list = field(default_factory=list)
    names: list | None = None
    dropped: Counter = field(default_factory=Counter)

    def add(self, wanted, shapes, where, split=None):
        """Add the image that a file means, or count it as missing."""
        path = self.images.find(wanted, where)
        if path is None:
            self.dropped["annotated images that are not there"] += 1
        else:
            self.pictures.append(Picture(path, shapes, split or split_of(where, self.folder), where))


class Images:
    """The images below a folder. Annotations name them by paths of other machines: what counts is what is here.

    Args:
        folder: folders that are links are not looked into.
    """

    def __init__(self, folder):
        self.folder, self.paths, self._by_name = folder, [], defaultdict(list)
        for root, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            for name in sorted(files):
                if name.lower().endswith(ENDINGS) and not name.startswith("."):
                    self.paths.append(os.path.join(root, name))
                    for key in {name, os.path.splitext(name)[0]}:
                        self._by_name[key].append(self.paths[-1])

    def find(self, wanted, where):
        """The image that `wanted` means in the file `where`; None if there is none.

        Args:
            wanted: a path of whatever machine, a URL, or a name without an ending.

        Raises:
            UserError: several images could be meant.
        """
        wanted = urllib.parse.unquote(str(wanted)).replace("\\", "/").split("?d=")[-1].split("?")[0]
        parts = [part for part in wanted.split("/") if part not in ("", ".", "..")]
        found = self._by_name.get(parts[-1], []) if parts else []
        if not found and parts and (stripped := re.sub(r"^[0-9a-f]{8}-", "", parts[-1])) != parts[-1]:
            found = self._by_name.get(stripped, [])  # Label Studio's prefix of what was uploaded
        if len(found) > 1:
            found = self._nearest(found, parts, where)
        return found[0] if found else None

    def _nearest(self, found, parts, where):
        split = split_of(where, self.folder)

        def agreement(path):
            ends = zip(reversed(os.path.splitext(path)[0].split(os.sep)), reversed(_stem(parts)))
            same = [a == b for a, b in ends]
            shared = os.path.commonpath([os.path.abspath(path), os.path.abspath(where)])
            return (same + [False]).index(False), split_of(path, self.folder) == split, len(shared)

        best = max(map(agreement, found))
        nearest = [path for path in found if agreement(path) == best]
        if len(nearest) > 1:
            raise UserError(f"{where}: {'/'.join(parts)} could be {nearest[0]} or {nearest[1]}; give them other names")
        return nearest


def _stem(parts):
    return [*parts[:-1], os.path.splitext(parts[-1])[0]]


def split_of(path, folder):
    """The split that a folder's name on the way to a file says, or the file's own; None if none does."""
    parts = re.split(r"[/\\]", os.path.splitext(os.path.relpath(path, folder))[0].lower())
    words = [re.sub(r"20\d\d$", "", word) for word in (*parts[:-1][::-1], *re.split(r"[_\-.]", parts[-1]))]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def read_text(path):
    """A text file.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        with open_file(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def read_json(path):
    """A JSON file.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        with open_file(path, "rb") as file:
            return parsed(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON: {error}") from None


def read_xml(path):
    """The root element of an XML file. Nothing is expanded or fetched: a file with a DOCTYPE is refused.

    Raises:
        UserError: it cannot be read, is no XML, or has a DOCTYPE.
    """

    def refuse(*_):
        raise UserError(f"{path}: has a DOCTYPE, which annotations do not need and files that do harm do; remove it")

    builder, parser = ET.TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    try:
        with open_file(path, "rb") as file:
            parser.Parse(file.read(), True)
        return builder.close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except (expat.ExpatError, ValueError) as error:
        raise UserError(f"{path}: broken XML: {error}") from None


def number(value, where, what):
    """A finite number.

    Raises:
        UserError: `value` is none.
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = float("nan")
    if not abs(result) < 1e9 or isinstance(value, bool):
        raise UserError(f"{where}: {what} has to be a number, found {value!r}")
    return result


def label(value, where):
    """The name of a class.

    Raises:
        UserError: it is empty or no text.
    """
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        raise UserError(f"{where}: an object has no class name, found {value!r}")
    return text


def turned(x, y, width, height, degrees, around):
    """The corners of a box that is turned clockwise about the point `around`."""
    import math

    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    moved = [(a - around[0], b - around[1]) for a, b in corners]
    return [(around[0] + a * cosine - b * sine, around[1] + a * sine + b * cosine) for a, b in moved]


def files(folder, *endings):
    """Paths below a folder that have an ending, in order."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [os.path.join(root, n) for n in sorted(names) if n.lower().endswith(endings) and n[0] != "."]
    return found
