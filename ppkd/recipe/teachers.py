"""Which teachers a slim file has: the one that its ``_BASE_`` describes, and those of ``distill.teachers``."""

import os
import re
from dataclasses import dataclass

from ppkd.bridge.class_names import names_of_training
from ppkd.errors import UserError, nearest
from ppkd.files.yaml_io import Tagged, clone, merge, path_of_base, read_with_bases
from ppkd.recipe.foreign import DETECTOR, KINDS, OF_ONNX, ONNX, detects, foreign_config, teach_names
from ppkd.recipe.keys import RUN_KEYS, check_top_level, is_number
from ppkd.recipe.limits import check_limits
from ppkd.recipe.plan import TEACHER
from ppkd.recipe.settings import settle, take
from ppkd.recipe.shape import check_shape

# Keys of an entry of distill.teachers; all others are keys of that teacher's config.
_OWN = ("config", "weight", "input_scale", *KINDS, *OF_ONNX)
# What no teacher may be called: recipe.yml has these beside the teachers, and -o means the student by the first.
RESERVED = ("student", "run", "distill", "versions")
_NAME = re.compile(r"^[A-Za-z_]\w*$")


@dataclass
class TeacherSpec:
    """A teacher.

    Attributes:
        config: its whole ppdet config.
        weights: path, URL or None.
        file: that it came from, for messages.
        weight: factor on every term that takes it.
        input_scale: how many times as large as the student's its images are.
    """

    config: dict
    weights: str | None
    file: str
    weight: float = 1.0
    input_scale: float = 1.0

    @property
    def detects(self):
        """Whether it is a detector, with classes and an AP."""
        return detects(self.config)


def name_the_teacher(own, path):
    """Let ``teacher:`` of a slim file be an entry of ``distill.teachers``, which it is short for.

    Args:
        own: the keys of that file; changed in place.
        path: of the file.

    Raises:
        UserError: both are there, or it is no mapping.
    """
    if TEACHER not in own:
        return
    entry, block = own.pop(TEACHER), own.setdefault("distill", {})
    teachers = block.setdefault("teachers", {}) if isinstance(block, dict) else None
    if not isinstance(entry, dict) or not isinstance(teachers, dict) or TEACHER in teachers:
        raise UserError(
            f"{path}: {TEACHER} has to be a mapping such as {{{KINDS[0]}: NAME, pretrain_weights: FILE}}, and no other "
            f"in distill.teachers of this name; found {entry!r}"
        )
    teachers[TEACHER] = entry


def resolve_paths(own, path):
    """Make the paths in a slim file's ``distill:`` block relative to the working directory, not to the file.

    Args:
        own: the keys of that file; changed in place.
        path: of the file.
    """
    block = own.get("distill")
    if not isinstance(block, dict):
        return
    teachers = block.get("teachers")
    for entry in teachers.values() if isinstance(teachers, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("config"), str):
            entry["config"] = path_of_base(path, entry["config"])
    if isinstance(block.get("plugins"), str):
        block["plugins"] = [block["plugins"]]
    if isinstance(block.get("plugins"), list):
        block["plugins"] = [_beside(path, str(item)) for item in block["plugins"]]


def _beside(path, name):
    return os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(name)))


def read_teachers(bases, own, overrides, named, student, path):
    """All teachers of a recipe.

    Args:
        bases: what the slim file's ``_BASE_`` files say.
        own: the slim file's own keys about the teacher.
        overrides: what ``-o teacher.*`` says.
        named: ``distill.teachers``, or None.
        student: the run's config.
        path: of the slim file.

    Returns:
        Name -> `TeacherSpec`, the one of ``_BASE_``, called ``teacher``, first.

    Raises:
        UserError: none at all, or anything wrong with one.
    """
    if not isinstance(named, dict | None):
        raise UserError(f"{path}: distill.teachers has to be a mapping from a name to config, pretrain_weights, ...")
    found = {}
    config = merge(clone(bases), own)
    if "architecture" in config:
        check_top_level(overrides, config, "-o teacher.*")
        check_fields(config, overrides, "-o teacher")
        found[TEACHER] = _spec(config, overrides, own | overrides, student, path)
    elif not own and TEACHER in (named or {}):
        named = {**named, TEACHER: _overridden(named[TEACHER], overrides)}
    elif not named:
        raise UserError(f"{path}: its _BASE_ describes no teacher: no `architecture` in it")
    elif own or overrides:
        key = next(iter(own), None) or f"-o teacher.{next(iter(overrides))}"
        raise UserError(
            f"{path}: {key}: of which teacher? There is no _BASE_ teacher; set it in distill.teachers.NAME, "
            f"the names being {', '.join(named)}"
        )
    for name, entry in (named or {}).items():
        found[str(name)] = _named(name, entry, student, path, found)
    return found


def _overridden(entry, overrides):
    return merge(clone(entry), overrides) if isinstance(entry, dict) else entry


def _named(name, entry, student, path, found):
    where = f"{path}: distill.teachers.{name}"
    if not isinstance(name, str) or not _NAME.match(name) or name in RESERVED:
        raise UserError(
            f"{where}: no name for a teacher: letters, digits and underscores, and not {', '.join(RESERVED)}"
        )
    if name in found:
        raise UserError(f"{where}: the teacher of _BASE_ has this name; give this one another")
    config = _config_of(entry, where)
    for key in OF_ONNX:
        if key in entry and ONNX not in entry:
            raise UserError(f"{where} has no use for {key!r}: it goes with {ONNX}")
    own = {k: v for k, v in entry.items() if k not in _OWN}
    _check_keys(own, config, where)
    # A detector's file names the weights that its training began with, which are no trained detector's.
    if "config" in entry:
        config["pretrain_weights"] = None
    numbers = {key: positive(entry.get(key, 1.0), f"{where}.{key}") for key in ("weight", "input_scale")}
    return _spec(config, own, own, student, path, **numbers)


def _config_of(entry, where):
    """What an entry of ``distill.teachers`` says of the model, before the entry's own keys are merged into it."""
    if isinstance(entry, dict) and any(kind in entry for kind in KINDS):
        return foreign_config(entry, where)
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), str):
        raise UserError(
            f"{where} lacks config: the path of the teacher's config file, beside its pretrain_weights"
            f" (or {' or '.join(KINDS)}, for a teacher that is no detector)"
        )
    _, layers = read_with_bases(entry["config"])
    config = {}
    for _, values in layers:
        merge(config, values)
    if "slim" in config:
        raise UserError(f"{where}.config: {entry['config']} is a slim file; give the teacher's own config")
    if "architecture" not in config:
        raise UserError(f"{where}.config: {entry['config']} describes no detector: no `architecture` in it")
    return config


def _check_keys(own, config, where):
    for key in own:
        if key in RUN_KEYS and key not in config:
            raise UserError(f"{where} has no use for {key!r}: it is of the run, not of a teacher")
        if hint := nearest(str(key), _OWN):
            try:
                check_top_level({key: None}, config, where)
            except UserError:
                raise UserError(f"{where}: unknown key {key!r}{hint}") from None
    check_top_level(own, config, where)
    check_fields(config, own, where)


def _spec(config, values, own, student, path, **more):
    merge(config, values)
    check_shape(config, dict.fromkeys(config, path))
    settle(config, take(config, path))
    check_limits(config, dict.fromkeys(config, path))
    if detects(config) and own.get("num_classes", "auto") == "auto":
        config["num_classes"] = student.get("num_classes", 80)
    if config["architecture"] == DETECTOR and config[DETECTOR].get("classes") is None:
        teach_names(config, names_of_training(student))
    weights = config.get("pretrain_weights")
    return TeacherSpec(config, None if weights is None else str(weights), path, **more)


def positive(value, where):
    """A number above 0 as float; anything else is refused with the place where it stands."""
    if not is_number(value) or value <= 0:
        raise UserError(f"{where} has to be a number above 0, found {value!r}")
    return float(value)


def check_fields(into, values, source, path=""):
    """Refuse ``a.b=1`` where `a` is a list or a plain value: it would be replaced by a mapping, which nothing reads."""
    for key, value in values.items():
        here = into.get(key)
        if not isinstance(value, dict) or isinstance(value, Tagged) or here is None:
            continue
        if not isinstance(here, dict):
            what = "a list: give it whole" if isinstance(here, list) else f"{here!r} and has no fields to set"
            raise UserError(f"{source}: {path}{key} is {what}")
        check_fields(here, value, source, f"{path}{key}.")
