"""What only training and validation set together show: other categories, and images that are in both."""

import collections
import hashlib
import math
import os
import time

from ppkd.bridge.annotation_file import category_names
from ppkd.errors import UserError
from ppkd.files.regular import open_file

# How many bytes at the end of an image are compared first.
_END = 256


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
    if len(theirs) < len(ours):
        return "category-missing", f"{begin}: {', '.join(map(repr, ours[len(theirs) :]))} is in the first alone"
    return None


def _annotations(section):
    if not isinstance(section, dict) or not str(section.get("anno_path") or "").endswith(".json"):
        return None
    return os.path.join(section.get("dataset_dir") or "", section["anno_path"])


def _plain(name):
    return str(name).strip().casefold()


def same_files(first, second, seconds=math.inf):
    """Files of equal content in two sets, yielded as pairs. Files are told apart by size, then by their ends; the few
    that are alike so far are read.

    Args:
        first, second: iterables of paths.
        seconds: how long to look.

    Raises:
        TimeoutError: not all was looked at in this time.
    """
    end = time.monotonic() + seconds
    sizes, digests, ends = collections.defaultdict(list), {}, {}
    for path in _until(end, first):
        sizes[_size(path)].append(path)
    for path in _until(end, second):
        alike = sizes.get(_size(path), ())
        for other in [path] if path in alike else _until(end, alike):
            same = path == other or (
                _known(ends, path, _end) == _known(ends, other, _end) is not None
                and _known(digests, path, _digest) == _known(digests, other, _digest) is not None
            )
            if same:
                yield path, other
                break


def marks_of(paths):
    """Bytes that tell files of other content at these paths, by the sizes and ends of them; nothing else is read."""
    return hashlib.blake2b(b"".join(repr((_size(path), _end(path))).encode() for path in paths)).digest()


def _until(end, paths):
    for path in paths:
        if time.monotonic() > end:
            raise TimeoutError
        yield path


def _known(found, path, look):
    if path not in found:
        found[path] = look(path)
    return found[path]


def _size(path):
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):  # a name that no file can have
        return None


def _end(path):
    """The last bytes of a file: unlike the first, those of two photographs are never the same."""
    try:
        with open_file(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            return file.read()
    except (OSError, ValueError):
        return None


def _digest(path):
    try:
        with open_file(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except (OSError, ValueError):
        return None
