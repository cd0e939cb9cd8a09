"""The names of a detector's classes, kept in a small file beside its weights: ``model_final.names.yml``."""

import os

import yaml

from ppkd.errors import UserError
from ppkd.files.regular import open_file
from ppkd.files.tensor_files import SUFFIXES
from ppkd.files.write import write_text
from ppkd.files.yaml_io import dump, read_yaml
from ppkd.files.yaml_loader import Loader

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
        return names_in(path), path
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


def given_names(value, key=KEY):
    """The names that ``class_names`` gives.

    Args:
        value: a list of names; or the path of a file with ``names:`` (.yml), or with one name a line.
        key: what gives them, for messages.

    Raises:
        UserError: neither of these.
    """
    if not isinstance(value, str):
        return checked(value, key)
    if value.endswith((".yml", ".yaml")):
        return names_in(value)
    try:
        with open_file(value, encoding="utf-8") as file:
            return checked([line.strip() for line in file if line.strip()], value)
    except (OSError, UnicodeDecodeError) as error:
        how = f"{key}=[cat,dog]" if key == KEY else f"{key} cat,dog"
        raise UserError(f"{key}: {value} cannot be read: {error}; give a list, {how}, or a file") from None


def names_in(path):
    """The ``names:`` of a YAML file as text, as it is written: ``no`` and ``1e3`` are names like others.

    Raises:
        UserError: there are none, or the file cannot be read.
    """
    read_yaml(path)  # says what is wrong with it
    with open_file(path, encoding="utf-8") as file:
        top = yaml.compose(file, Loader=Loader)
    nodes = {key.value: value for key, value in top.value} if isinstance(top, yaml.MappingNode) else {}
    return checked(_as_written(nodes.get("names")), f"{path}: names")


def _as_written(node):
    if isinstance(node, yaml.SequenceNode):
        return [_as_written(each) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        found = {key.value: _as_written(value) for key, value in node.value}
        if len(found) < len(node.value):
            raise UserError(f"{node.start_mark.name}:{node.start_mark.line + 1}: names: a class has two names")
        return found
    return node.value if isinstance(node, yaml.ScalarNode) and (node.value or node.style) else None


def checked(names, where):
    """`names` as a list of text; a mapping from 0 on (as YOLO's ``data.yaml`` may have it) is one too.

    Raises:
        UserError: it is no list of names.
    """
    if isinstance(names, dict) and names and all(str(key).strip().isdecimal() for key in names):
        numbered = {int(key): name for key, name in names.items()}
        if sorted(numbered) != list(range(len(names))):
            numbers = ", ".join(str(key) for key in list(names)[:8]) + (", ..." if len(names) > 8 else "")
            raise UserError(f"{where}: the classes are numbered {numbers}: they have to be 0 to {len(names) - 1}, with "
                            "no gap, for a class is known by its number counted from 0")  # fmt: skip
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not names or any(isinstance(n, (dict, list)) or n is None for n in names):
        raise UserError(f"{where}: has to be a list of names, one a class, found {names!r}")
    return [str(name) for name in names]
