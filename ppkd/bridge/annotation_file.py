"""Reads COCO's annotation files: whole, or of a file of hundreds of megabytes only its categories."""

import json
import mmap
import os

from ppkd.errors import UserError
from ppkd.files.in_place import in_place_of
from ppkd.files.regular import open_file

EXAMPLE = "-o dataset_dir=/data/mine train_annotations=annotations/train.json"
# Where `categories` are looked for without reading all of a file, in bytes.
_WINDOW = 1 << 20
_LISTS = ("images", "annotations", "categories")


def read_annotations(path, keys):
    """Read a COCO annotation file, in UTF-8, -16 or -32, with a byte order mark or without.

    Args:
        path: the file.
        keys: top-level keys that have to be there.

    Raises:
        UserError: the file is missing, is not JSON, or lacks a key.
    """
    try:
        with open_file(path, "rb") as file:
            content = parsed(file)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such annotation file (looked for {os.path.abspath(path)}). Set dataset_dir and "
            f"train_annotations, for example {EXAMPLE}"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON: {error}") from None
    found = list(content) if isinstance(content, dict) else []
    missing = [key for key in keys if key not in found]
    if missing:
        what = f"its keys are {', '.join(map(str, found[:6]))}" if found else f"it holds a {type(content).__name__}"
        raise UserError(f"{path}: not a COCO annotation file: no {' and no '.join(missing)} in it ({what})")
    return content


def parsed(file):
    """What a JSON file says that is opened for reading bytes, in whichever of UTF's encodings it is written.

    Raises:
        ValueError: it is no JSON, or one of COCO's lists stands twice in it.
    """
    data = file.read()
    if told := in_place_of("file", data):
        raise ValueError(told.removeprefix(": "))
    text = data.decode(json.detect_encoding(data))
    del data  # of hundreds of megabytes not twice
    # To look at each object takes long: only where one of COCO's lists can be there twice, as in files made by hand.
    twice = any(text.count(f'"{key}"') > 1 for key in _LISTS)
    return json.loads(text, object_pairs_hook=_without_a_second if twice else None)


def _without_a_second(pairs):
    """A mapping; of a list that stands in it twice, JSON's reader would forget the first without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        for key in _LISTS:
            if keys.count(key) > 1:
                raise ValueError(f"`{key}` stands twice in it; put both lists into one")
    return found


def read_categories(path):
    """The categories of an annotation file, each with an ``id`` and a ``name``, in the order of the file: ppdet numbers
    classes so.

    Raises:
        UserError: the file is missing, is not JSON, or has no categories.
    """
    found = _quick(path)
    if found is None:
        found = read_annotations(path, ("categories",))["categories"]
    if not isinstance(found, list) or not all(isinstance(x, dict) and "name" in x and "id" in x for x in found):
        raise UserError(f"{path}: not a COCO annotation file: every category needs a `name` and an `id`")
    if not found:
        raise UserError(f"{path}: its `categories` are empty, so there is nothing to detect")
    return list({str(entry["id"]): entry for entry in found}.values())


def category_names(path):
    """Their names, as `read_categories` has them."""
    return [str(entry["name"]) for entry in read_categories(path)]


def _quick(path):
    """The list behind the one place that says ``"categories":``, or None."""
    try:
        with open_file(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                key = b'"categories"'
                at = data.rfind(key)
                if at < 0 or data.find(key) != at:
                    return None
                text = data[at + len(key) : at + _WINDOW].decode("utf-8", "ignore").lstrip()
    except OSError:
        return None
    if not text.startswith(":"):
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except (ValueError, RecursionError):
        return None
    return found
