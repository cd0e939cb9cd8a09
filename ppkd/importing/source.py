"""What a reader makes of a data set, and what all readers share: text, XML and JSON of anyone."""

import marshal
import os
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from xml.parsers import expat

from ppkd.bridge.annotation_file import parsed
from ppkd.errors import UserError
from ppkd.files.regular import open_file
from ppkd.importing.images import split_of, stem_of

MISSING = "annotated images that are not there"


@dataclass(slots=True)
class Shape:
    """An object in an image, in pixels.

    Attributes:
        label: name of its class.
        points: corners of a polygon, or two corners of a box: ``[(x, y), ...]``.
        polygon: whether the points are a polygon.
        more: keys of COCO that are kept as they are (``iscrowd``, ``ignore``, ``area``, ``segmentation``).
    """

    label: str
    points: list
    polygon: bool = False
    more: dict = field(default_factory=dict)


class Picture:
    """An image and what is in it, which is held packed: there may be a million of them.

    Attributes:
        path: the file.
        shapes: list of `Shape`, or a function of width and height that gives it, where a format has shares of these.
        split: ``train``, ``val``, ``test`` or None, where the format does not say.
        where: the file that says it, for messages.
        size: width and height of the picture that it says it of, or None where it does not tell.
    """

    __slots__ = ("path", "_shapes", "split", "where", "size")

    def __init__(self, path, shapes, split, where, size=None):
        self.path, self.split, self.where, self.size = path, split, where, size
        self._shapes = shapes if callable(shapes) else packed([(s.label, s.points, s.polygon, s.more) for s in shapes])

    @property
    def shapes(self):
        return self._shapes if callable(self._shapes) else [Shape(*parts) for parts in unpacked(self._shapes)]


def packed(values):
    """Bytes of a list of plain values, a tenth of its size; none for an empty one. Only for this process."""
    return marshal.dumps(values) if values else b""


def unpacked(data):
    """The list of `packed`."""
    return marshal.loads(data) if data else []


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

    def told(self):
        """What is not taken over, behind a message that says what is lacking."""
        return "".join(f"; {count} {what}" for what, count in self.dropped.items() if count)

    def add(self, wanted, shapes, where, split=None, size=None, subset=None):
        """Add the image that a file means, or count it as missing; `subset` is as `Images.find` takes it."""
        path = self.images.find(wanted, where, subset)
        if path is None:
            self.dropped[MISSING] += 1
        else:
            self.pictures.append(Picture(path, shapes, split or split_of(where, self.folder), where, size))

    def add_own(self, wanted, shapes, where, split=None, size=None):
        """`add` for a file that is about the image of its own name, and says a name in it, which may be of before."""
        stem, name = stem_of(where), str(wanted).replace("\\", "/").rpartition("/")[2]
        if stem in (name, stem_of(name)):
            taken = wanted if self.images.find(wanted, where) else stem
        elif self.images.find(stem, where):
            self.dropped["files that name another image than that of their own name, which is taken"] += 1
            taken = stem
        else:
            taken = wanted
        self.add(taken, shapes, where, split, size)


def read_text(path):
    """A text file.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        with open_file(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: it is not in UTF-8, save it so: {error}") from None


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


def declared(width, height, where):
    """``(width, height)`` as annotations say them; None where they do not: absent, empty or 0.

    Raises:
        UserError: one is no number.
    """
    sides = [number(value or 0, where, key) for key, value in (("width", width), ("height", height))]
    return tuple(sides) if min(sides) > 0 else None


def label(value, where):
    """The name of a class.

    Raises:
        UserError: it is empty or no text.
    """
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        raise UserError(f"{where}: an object has no class name, found {value!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: the class name {text!r} holds half a character, which no file can")
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
