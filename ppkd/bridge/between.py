"""What only training and validation set together show: other categories, and images that are in both."""

import collections
import hashlib
import json
import mmap
import os

from ppkd.bridge.coco_reading import read_tidied
from ppkd.errors import UserError
from ppkd.files.regular import open_file

# Where `categories` are looked for without reading all of a file, in bytes.
_WINDOW = 1 << 20


def compare_categories(config):
    """Whether class numbers mean the same in both sets: ppdet numbers categories in the order of each file.

    Args:
        config: the run's config.

    Returns:
        ``(kind, text)``, a kind of `kinds.ANNOTATIONS`; None where they agree or one of the files cannot be read.
    """
    paths = [_annotations(config.get(section)) for section in ("TrainDataset", "EvalDataset")]
    try:
        ours, theirs = ([_plain(name) for name in category_names(path)] for path in paths)
    except (OSError, UserError, TypeError):
        return None  # what is wrong with a file is told where it is opened
    begin = f"{paths[0]} and {paths[1]} do not list the same categories in the same order"
    places = {name: place for place, name in enumerate(ours) if ours.count(name) == 1}
    for place, name in enumerate(theirs):
        if name in places and places[name] != place and theirs.count(name) == 1:
            return "category-order", f"{begin}: {name!r} is class {places[name]} in the one and {place} in the other"
    for place, (one, other) in enumerate(zip(ours, theirs)):
        if one != other:
            return "category-names", f"{begin}: class {place} is {one!r} in the one and {other!r} in the other"
    if len(theirs) > len(ours):
        return "category-names", f"{begin}: {theirs[len(ours)]!r} is in the second alone"
    return None


def _annotations(section):
    if not isinstance(section, dict) or not str(section.get("anno_path") or "").endswith(".json"):
        return None
    return os.path.join(section.get("dataset_dir") or "", section["anno_path"])


def _plain(name):
    return str(name).strip().casefold()


def category_names(path):
    """Names of an annotation file's categories in the order of the file, in which ppdet numbers them.

    Of a file of hundreds of megabytes only the part that holds them is read.

    Raises:
        UserError: it is no annotation file.
        OSError: it cannot be read.
    """
    categories = _quick(path)
    if categories is None:
        categories = read_tidied(path, ("categories",)).content["categories"]
    return [str(entry["name"]) for entry in {str(entry["id"]): entry for entry in categories}.values()]


def _quick(path):
    """The list behind the one place that says ``"categories":``, or None."""
    with open_file(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            key = b'"categories"'
            at = data.rfind(key)
            if at < 0 or data.find(key) != at:
                return None
            text = data[at + len(key) : at + _WINDOW].decode("utf-8", "ignore").lstrip().lstrip(":").lstrip()
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    sound = isinstance(found, list) and all(isinstance(x, dict) and "name" in x and "id" in x for x in found)
    return found if sound else None


def same_files(first, second):
    """Files of equal content in two sets, yielded as pairs; none of a size that is in one set alone is read.

    Args:
        first, second: iterables of paths.
    """
    sizes = collections.defaultdict(list)
    for path in first:
        sizes[_size(path)].append(path)
    hashed = {}
    for path in second:
        alike = sizes.get(_size(path), ())
        if alike:
            digest = _digest(path)
            for other in alike:
                if hashed.setdefault(other, None) is None:
                    hashed[other] = _digest(other)
                if digest is not None and hashed[other] == digest:
                    yield path, other
                    break


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _digest(path):
    try:
        with open_file(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return None
