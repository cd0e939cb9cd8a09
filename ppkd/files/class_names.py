"""The names of a detector's classes, kept in a small file beside its weights: ``model_final.names.yml``."""

import os

from ppkd.errors import UserError
from ppkd.files.regular import open_file
from ppkd.files.tensor_files import SUFFIXES
from ppkd.files.write import write_text
from ppkd.files.yaml_io import dump, read_yaml

SUFFIX = ".names.yml"
KEY = "class_names"
_HEAD = "# What the classes of {weights} are called, in the order of its outputs. Keep this file beside it.\n"


def file_beside(weights):
    """The path of the names of a weight file: the same without its ending, and `SUFFIX`."""
    stem, ending = os.path.splitext(weights)
    return (stem if ending in SUFFIXES else weights) + SUFFIX


def write_names(weights, names):
    """Write names beside a weight file, whole or not at all.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    head = _HEAD.format(weights=os.path.basename(weights))
    write_text(file_beside(weights), head + dump({"names": list(names)}))


def names_beside(weights):
    """The names that belong to a weight file.

    Args:
        weights: path of the weights.

    Returns:
        ``(names, file)``: of the file beside it, or else of the ``recipe.yml`` of the run that left it;
        ``(None, None)`` if neither says it.

    Raises:
        UserError: the file is there and holds no names.
    """
    path = file_beside(weights)
    if os.path.isfile(path):
        return checked(read_yaml(path).get("names"), f"{path}: names"), path
    path = os.path.join(os.path.dirname(weights), "recipe.yml")
    if os.path.isfile(path):
        run = read_yaml(path).get("run")
        if isinstance(run, dict) and run.get(KEY) is not None:
            return checked(run[KEY], f"{path}: {KEY}"), path
    return None, None


def carry(source, target):
    """Let weights that are made from others have their names as well."""
    names, _ = names_beside(source)
    if names is not None:
        write_names(target, names)


def given_names(value):
    """The names that ``class_names`` gives.

    Args:
        value: a list of names; or the path of a file with ``names:`` (.yml), or with one name a line.

    Raises:
        UserError: neither of these.
    """
    if not isinstance(value, str):
        return checked(value, KEY)
    if value.endswith((".yml", ".yaml")):
        return checked(read_yaml(value).get("names"), f"{value}: names")
    try:
        with open_file(value, encoding="utf-8") as file:
            return checked([line.strip() for line in file if line.strip()], value)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{KEY}: {value} cannot be read: {error}; give a list, {KEY}=[cat,dog], or a file") from None


def checked(names, where):
    """`names` as a list of text; a mapping from 0 on (as YOLO's ``data.yaml`` may have it) is one too.

    Raises:
        UserError: it is no list of names.
    """
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or any(isinstance(n, (dict, list)) or n is None for n in names):
        raise UserError(f"{where}: has to be a list of names, one a class, found {names!r}")
    return [str(name) for name in names]
