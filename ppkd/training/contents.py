"""Checksums of the files that a run learns from: a path may lead to another file tomorrow, and the run be another."""

import hashlib
import os

from ppkd.files.locate import local_file
from ppkd.files.regular import open_file

PREFIX = "contents."
# Of which nothing is learned; but a run compares what it reaches on it.
VALIDATED = "EvalDataset"
_PIECE = 1 << 20
# What of a data set's section names files, and the data sets whose annotation file lists further ones.
_FILES, _LISTS = ("anno_path", "label_list"), ("VOCDataSet",)


def contents(recipe):
    """Checksum by key of weights, annotations and lists of classes, as far as the files are there.

    Images are not among them: they are many times as large, and whoever changes them changes their annotations.

    Args:
        recipe: `recipe.Recipe`.

    Returns:
        ``{"contents.TrainDataset.anno_path": 64 digits, ...}``; weights of an address only once they are fetched.
    """
    found = {"pretrain_weights": [local_file(recipe.student.get("pretrain_weights"))]}
    for name, spec in recipe.teachers.items():
        found[f"{name}.pretrain_weights"] = [local_file(spec.weights)]
    for name in ("TrainDataset", VALIDATED):
        section = recipe.student.get(name)
        if isinstance(section, dict):
            found |= {f"{name}.{key}": _named(section, key) for key in _FILES}
    checksums = {PREFIX + key: _checksum(paths) for key, paths in found.items()}
    return {key: value for key, value in checksums.items() if value is not None}


def _named(section, key):
    """The files that a key of a data set's section stands for."""
    folder, given = str(section.get("dataset_dir") or ""), section.get(key)
    path = os.path.join(folder, str(given)) if given else None
    if path is None or key != "anno_path" or getattr(section, "tag", None) not in _LISTS or not os.path.isfile(path):
        return [path]
    images = os.path.join(folder, str(section.get("image_dir") or ""))
    with open_file(path, encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in file]
    return [path, *(os.path.join(images, words[1]) for words in lines if len(words) == 2)]


def _checksum(paths):
    """One of all files, or None if the first is not there."""
    if paths[0] is None or not os.path.isfile(paths[0]):
        return None
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open_file(path, "rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except OSError as error:
            digest.update(str(error.errno).encode())
    return digest.hexdigest()
