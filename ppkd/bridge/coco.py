"""COCO annotation files as people have them, made into what ppdet and pycocotools can work with.

What is harmless is taken: ids as text or floats, sizes and boxes as text, a boolean ``iscrowd``, annotation ids from 0
or twice. What is not is noted, by kinds of `kinds.ANNOTATIONS`.
"""

import json
import math
import os

from ppkd.files.write import write_text

_LARGEST = 2**63 - 1  # of a tensor's whole numbers
_NUMBERS, _FAR = {int, float}, 1e15
_FARTHEST = 3e38  # of a tensor's numbers of 32 bits: beyond it is infinity
_FALSE, _TRUE = ("", "0", "false", "no"), ("1", "true", "yes")


class Tidied:
    """An annotation file's content in plain types.

    Args:
        content: what the file holds, a dict; it is changed.
        note: function from a kind of `kinds.ANNOTATIONS` and an example's text; None notes nothing.

    Attributes:
        content: the same with whole, unique ids; entries that nothing can be made of are left out. ``annotations`` is
            absent where the file has none.
        original: ``{"image_id": {number: id in the file}, "category_id": ...}``, empty where they are equal.
        unused: entries of ``annotations`` that are left out.
    """

    def __init__(self, content, note=None):
        self._note = note or (lambda kind, example: None)
        self.original = {"image_id": {}, "category_id": {}}
        self.unused = 0
        self.content = dict(content)
        for key in ("images", "categories", "annotations"):
            if not isinstance(content.get(key, []), list):
                self._note("no-list", f"`{key}` is {type(content[key]).__name__}")
        self.content["categories"] = self._categories(_entries(content.get("categories")))
        self.content["images"] = self._images(_entries(content.get("images")))
        if "annotations" in content:
            self.content["annotations"] = self._annotations(_entries(content["annotations"]))

    def _categories(self, entries):
        sound = []
        for entry in entries:
            if isinstance(entry, dict) and _can_be_id(entry.get("id")) and _is_name(entry.get("name")):
                sound.append(entry)
            else:
                self._note("broken-category", f"{entry!r:.60}: needs `id` and `name`")
        self._category = self._numbered(sound, "category_id", "category")
        found = {}
        for entry in sound:
            before = found.setdefault(entry["id"], entry)
            if before is not entry and before["name"] != entry["name"]:
                self._note("duplicate-category", f"id {entry['id']}: {before['name']} and {entry['name']}")
        return list(found.values())

    def _images(self, entries):
        sound = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self._note("broken-image-entry", f"image number {number} is no mapping")
                continue
            lacking = [key for key in ("width", "height") if not (_number(entry.get(key)) or 0) > 0]
            lacking += [] if _can_be_id(entry.get("id")) else ["id"]
            lacking += [] if _is_file_name(entry.get("file_name")) else ["file_name"]
            if lacking:
                name = entry.get("file_name") or f"number {number}"
                self._note("broken-image-entry", f"image {name}: needs a sound {' and '.join(lacking)}")
                continue
            for key in ("width", "height"):
                if isinstance(entry[key], str):
                    self._note("other-types", f"{key} {entry[key]!r} of {entry['file_name']}")
                    entry[key] = _number(entry[key])
            sound.append(entry)
        self._image = self._numbered(sound, "image_id", "image")
        found, files = {}, set()
        for entry in sound:
            before = found.setdefault(entry["id"], entry)
            if before is not entry and before["file_name"] != entry["file_name"]:
                self._note("duplicate-image", f"id {entry['id']}: {before['file_name']} and {entry['file_name']}")
        for entry in found.values():  # of two equal entries one is left
            if entry["file_name"] in files:
                self._note("duplicate-file", entry["file_name"])
            files.add(entry["file_name"])
        self._found = found
        return list(found.values())

    def _numbered(self, entries, key, what):
        """Give entries whole ids; returns a function from an id as the file has it to the entry's, or None."""
        wholes = {entry["id"]: whole(entry["id"]) for entry in entries}
        numbers = wholes
        if None in wholes.values() or len(set(wholes.values())) < len(wholes):
            numbers = {given: number for number, given in enumerate(wholes, 1)}
            self.original[key] = {number: given for given, number in numbers.items()}
            by_whole = {whole: numbers[given] for given, whole in wholes.items()}
            if len(by_whole) < len(wholes):
                by_whole = {}  # "1" and "01": each is only what it is
        else:
            by_whole = {whole: whole for whole in wholes.values()}
            self.original[key] = {whole: given for given, whole in wholes.items() if isinstance(given, str)}
        odd = [given for given in wholes if type(given) is not int]
        for given in odd:
            self._note("other-types", f"{what} id {given!r} is taken as {numbers[given]}")
        for entry in entries:
            entry["id"] = numbers[entry["id"]]

        def find(given):
            if type(given) is int and given in by_whole:
                return by_whole[given]
            if not _can_be_id(given):
                return None
            return numbers[given] if given in numbers else by_whole.get(whole(given))

        find.by_whole = by_whole
        return find

    def _annotations(self, entries):
        note, image_of, category_of, found = self._note, self._image, self._category, self._found
        kept, seen, renumber = [], set(), False
        for number, entry in enumerate(entries):
            if _is_plain(entry, image_of.by_whole, category_of.by_whole) and entry["id"] not in seen:
                entry["image_id"] = image_of.by_whole[entry["image_id"]]
                entry["category_id"] = category_of.by_whole[entry["category_id"]]
                seen.add(entry["id"])
                kept.append(entry)
                continue
            if not isinstance(entry, dict):
                note("broken-annotation", f"entry {number} is no mapping")
                continue
            key = entry.get("id")
            if type(key) is not int or key <= 0 or key in seen:
                renumber = True
                self._odd_id(key, seen, number)
            if isinstance(key, (int, str, float)):
                seen.add(key)
            image, category = image_of(entry.get("image_id")), category_of(entry.get("category_id"))
            if image is None or category is None:
                self._unknown(entry, number, image, category)
                continue
            entry["image_id"], entry["category_id"] = image, category
            if self._tidy_flags(entry, number) and self._tidy_box(entry, number, found[image]):
                kept.append(entry)
        if renumber:
            for number, entry in enumerate(kept, 1):
                entry["id"] = number
        self.unused = len(entries) - len(kept)
        return kept

    def _odd_id(self, key, seen, number):
        if type(key) is int and key in seen:
            self._note("duplicate-annotation", f"annotation {key}")
        elif type(key) is int and key == 0:
            self._note("annotation-ids", f"annotation number {number} has id 0")
        else:
            self._note("annotation-ids", f"annotation number {number} has id {key!r:.40}")

    def _unknown(self, entry, number, image, category):
        lacking = [key for key in ("image_id", "category_id") if not _can_be_id(entry.get(key))]
        if lacking:
            self._note("broken-annotation", f"{name_of(entry, number)}: no {' and no '.join(lacking)}")
        elif image is None:
            self._note("unknown-image", f"{name_of(entry, number)}: image_id {entry['image_id']!r}")
        else:
            self._note("unknown-category", f"{name_of(entry, number)}: category_id {entry['category_id']!r}")

    def _tidy_flags(self, entry, number):
        for key in ("iscrowd", "ignore"):
            value = entry.get(key, 0)
            if type(value) is int and value in (0, 1):
                if key == "iscrowd" and key not in entry:
                    entry[key] = 0  # ppdet and pycocotools look for it
                continue
            plain = flag(value)
            if plain is None:
                self._note("broken-annotation", f"{name_of(entry, number)}: {key} {value!r:.40} is neither 0 nor 1")
                return False
            if value is not None and type(value) is not bool:
                self._note("other-types", f"{key} {value!r} of {name_of(entry, number)}")
            entry[key] = plain
        return True

    def _tidy_box(self, entry, number, image):
        box = entry.get("bbox")
        if box is None or box == []:
            self._note("no-bbox", f"{name_of(entry, number)} of {image['file_name']}")
            return False
        if not isinstance(box, list) or len(box) != 4 or not all(_is_coordinate(value) for value in box):
            self._note("broken-box", f"{name_of(entry, number)} of {image['file_name']}: bbox {box!r:.80}")
            return False
        if any(isinstance(value, str) for value in box):
            self._note("other-types", f"bbox {box!r:.80} of {name_of(entry, number)}")
            entry["bbox"] = [_number(value) for value in box]
        area = entry.get("area")
        if type(area) is not int and type(area) is not float or area != area or math.isinf(area):
            area = _number(area)
            if area is None:
                self._note("missing-key", f"{name_of(entry, number)} of {image['file_name']}: no `area`")
                return False
            entry["area"] = area
        parts = entry.get("segmentation")
        if type(parts) is list and parts:
            entry["segmentation"] = _polygons(parts)
        return True


def _is_plain(entry, images, categories):
    """Whether an annotation is as nearly all are: nothing is told of it, and only its ids may become others.

    This is for time alone: all others are looked at key by key.
    """
    try:
        x, y, width, height = box = entry["bbox"]
        area, parts = entry["area"], entry.get("segmentation")
        return (
            type(entry["id"]) is int
            and entry["id"] > 0
            and type(entry["image_id"]) is int
            and entry["image_id"] in images
            and type(entry["category_id"]) is int
            and entry["category_id"] in categories
            and type(entry["iscrowd"]) is int
            and 0 <= entry["iscrowd"] <= 1
            and "ignore" not in entry
            and type(box) is list
            and {type(x), type(y), type(width), type(height), type(area)} <= _NUMBERS
            and -_FAR < x < _FAR
            and -_FAR < y < _FAR
            and -_FAR < width < _FAR
            and -_FAR < height < _FAR
            and -_FAR < area < _FAR
            and (type(parts) is not list or not parts or _polygons(parts) is parts)
        )
    except (KeyError, TypeError, ValueError):
        return False


def _entries(value):
    return value if isinstance(value, list) else []


def name_of(entry, number):
    """What an annotation is called in messages."""
    return f"annotation {entry.get('id', f'number {number}')}"


def _polygons(parts):
    """Those parts of a polygon that are an outline; pycocotools takes two points for a box, and fails on none."""
    if type(parts[0]) is not list:
        parts = [parts]  # one outline without a list around it
    for part in parts:
        if type(part) is not list or len(part) < 6 or len(part) % 2:
            break
    else:
        return parts
    return [part for part in parts if isinstance(part, list) and len(part) >= 6 and not len(part) % 2]


def _is_name(value):
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _is_file_name(value):
    """Whether it can be the name of a file: the empty one, and one of dots, is a folder's."""
    return isinstance(value, str) and os.path.basename(value) not in ("", ".", "..")


def _can_be_id(value):
    return isinstance(value, (int, str)) and not isinstance(value, bool) or isinstance(value, float) and value == value


def whole(value):
    """An id as a whole number, or None if it is none."""
    try:
        if isinstance(value, str) and "." in value:
            value = float(value)
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= _LARGEST and (isinstance(value, str) or number == value) else None


def _number(value):
    """A finite number, also one given as text, or None."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if kind not in (int, str):
        return None
    try:
        number = float(value)
        return (number if kind is str else value) if math.isfinite(number) else None
    except (ValueError, OverflowError):  # no number; a whole number of hundreds of digits
        return None


def _is_coordinate(value):
    number = _number(value)
    return number is not None and abs(number) < _FARTHEST


def flag(value):
    """0 or 1 of what stands for it, or None."""
    if value is None or isinstance(value, (bool, int, float)):
        return int(bool(value)) if value is None or value in (0, 1) else None
    text = value.strip().lower() if isinstance(value, str) else None
    return 0 if text in _FALSE else 1 if text in _TRUE else None


def restore_ids(folder, original):
    """Give results that ppdet has written the ids of the annotation file.

    Args:
        folder: of ``bbox.json`` and the like.
        original: as `Tidied` has it.
    """
    if not any(original.values()):
        return
    for name in ("bbox.json", "mask.json", "segm.json"):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
        for result in results:
            result.update({key: numbers.get(result[key], result[key]) for key, numbers in original.items()})
        write_text(path, json.dumps(results))
