"""Why images of an annotation file are not found, where it is one of the usual reasons, and what to set or write."""

import os
import re
import unicodedata
import urllib.parse

# How many of the missing ones are looked for elsewhere, and in how many folders.
_TRIED, _FOLDERS = 10, 200


def cure_of(missing, root, folder, split):
    """What would find images that are missing.

    Args:
        missing: their paths as ppdet joined them.
        root: ``dataset_dir``.
        folder: the folder of images.
        split: ``train`` or ``val``, for the key that is named.

    Returns:
        The end of a sentence, with what separates it; empty if nothing usual finds one of the first.
    """
    root = root or "."
    for path in missing[:_TRIED]:
        begin = os.path.join(folder, "")
        cure = _cure(path[len(begin) :] if path.startswith(begin) else path, root, folder, split)
        if cure:
            return f": {cure}"
    return ""


def _cure(name, root, folder, split):
    plain = urllib.parse.unquote(re.split(r"[?&]d=", name)[-1]).replace("\\", "/")
    plain = re.sub(r"^(\w+://[^/]*/|[A-Za-z]:/)", "", plain).split("?")[0].split("#")[0]
    base = os.path.basename(plain)
    if not base:
        return None
    for other in dict.fromkeys((root, os.path.dirname(folder.rstrip("/")) or ".", *_below(folder), *_below(root))):
        if name == plain and os.path.isfile(os.path.join(other, name)) and not os.path.samefile(other, folder):
            value = os.path.relpath(other, root)
            section = "TrainDataset" if split == "train" else "EvalDataset"
            where = f"{split}_images={value} ({section}.image_dir={value} in a config without that key)"
            return f"{name} is in {other}: set -o {where}"
    if plain != name and os.path.isfile(os.path.join(folder, plain)):
        why = "with / in place of \\" if "\\" in name else "decoded"
        return f"it is there as {plain}: write `file_name` {why}"
    if base != name and os.path.isfile(os.path.join(folder, base)):
        return f"it is there as {base}: write the base name alone into `file_name`"
    alike = _alike(folder, base)
    return f"there is {alike}: write `file_name` so" if alike else None


def _below(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())[:_FOLDERS]
    except OSError:
        return []


def _alike(folder, base):
    """A file of another spelling: capitals, letters with marks as one sign or as two, or another ending."""
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    lower = _plain(base)
    alike = [name for name in names if _plain(name) == lower]
    stem = os.path.splitext(lower)[0]
    return next(iter(alike or [name for name in names if os.path.splitext(_plain(name))[0] == stem]), None)


def _plain(name):
    return unicodedata.normalize("NFC", name).strip().lower()
