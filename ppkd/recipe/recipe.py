"""The two YAML files and ``-o`` become a `Recipe`: who is the student, who teaches it, and how.

The rule (docs/config.md): ``-c`` is the student and the run. The slim file's ``_BASE_`` is the teacher. What
the slim file *itself* says about the run overrides the student's file. ``-o key=value`` sets run and student,
``-o teacher.key=value`` the teacher, ``-o distill.key=value`` the method.
"""

import os
from dataclasses import dataclass, field

from ppkd.bridge.own_data import expand_own_data
from ppkd.errors import UserError
from ppkd.files.paths import safe_name
from ppkd.files.shipped import find_config
from ppkd.files.yaml_io import clone, merge, parse_value, read_with_bases
from ppkd.recipe.auto import settled
from ppkd.recipe.keys import METHOD_KEYS, RUN_KEYS, check_top_level
from ppkd.recipe.method import MethodSpec, complete, origins, read_method
from ppkd.recipe.reader_keys import unread_reader_keys
from ppkd.recipe.settings import settle, settle_method, take
from ppkd.recipe.shape import check_shape
from ppkd.recipe.teachers import check_fields, name_the_teacher, read_teachers, resolve_paths


@dataclass
class Recipe:
    """Everything that a command needs, validated.

    Attributes:
        name: stem of the student's file, as `paths.safe_name` has it; names the output folder.
        student: the student's and the run's merged ppdet config.
        teachers: teachers by name (usually one, ``teacher``); empty without a slim file.
        method: the distillation method, or None.
        notes: lines for the log: which keys of the slim file changed the run.
        origin: top-level key of the run -> file or ``-o`` that set it.
        slim: the `SlimFile`, or None.
    """

    name: str
    student: dict
    teachers: dict = field(default_factory=dict)
    method: MethodSpec | None = None
    notes: list = field(default_factory=list)
    origin: dict = field(default_factory=dict)
    slim: object = None

    @property
    def output_dir(self):
        """Folder for checkpoints and logs: ``save_dir/name``, as PaddleDetection names it."""
        return os.path.join(str(self.student.get("save_dir") or "output"), self.name)

    @property
    def detector(self):
        """What kind of detector the student is: its head says more than ``YOLOv3``, which PP-YOLOE's files have."""
        kind = self.student["architecture"]
        return (self.student.get(kind) or {}).get("yolo_head", kind)


def parse_overrides(pairs):
    """Turn ``["a.b=1", "c=2"]`` into ``{"a": {"b": 1}, "c": 2}``.

    Raises:
        UserError: an item without ``=``.
    """
    result = {}
    for pair in pairs or []:
        key, separator, text = pair.strip().partition("=")
        if not separator or not key:
            raise UserError(f"-o {pair!r}: expected key=value, for example -o epoch=12")
        *parents, last = key.split(".")
        here = result
        for parent in parents:
            here = here.setdefault(parent, {})
            if not isinstance(here, dict):
                raise UserError(f"-o {pair!r}: {parent} is given a value and fields at once")
        here[last] = parse_value(text)
    return result


def load_recipe(config, slim_config=None, overrides=()):
    """Build the recipe from ``-c``, ``--slim_config`` and ``-o``.

    Args:
        config: path of the student's file, or the name of one that comes with ppkd.
        slim_config: path or name of the slim file, or None for plain training.
        overrides: ``key=value`` strings.

    Raises:
        UserError: anything wrong in the files or the overrides.
    """
    config = find_config(config, "-c")
    slim_config = slim_config and find_config(slim_config, "--slim_config")
    given = parse_overrides(overrides)
    for_teacher, for_method = _fields(given, "teacher"), _fields(given, "distill")
    _, layers = read_with_bases(config)
    student, origin = _merged(layers)
    runs = os.path.normpath(str(student.get("save_dir")))
    if "slim" in student:
        raise UserError(f"{config}: has `slim:` in it, so it is a slim file, which goes to --slim_config")
    recipe = Recipe(_name_of(config), student, origin=origin)
    if slim_config is not None:
        recipe.slim = slim = _read_slim(slim_config)
        run, of_teacher = slim.run, slim.of_teacher
        unlabelled = next((values["unlabelled"] for values in (given, run, student) if "unlabelled" in values), None)
        teacher = {**slim.bases, **of_teacher}
        method, chosen = settled(slim.method, slim.own, student, teacher, bool(unlabelled), slim_config)
        recipe.method = read_method(method, for_method, slim_config)
        recipe.method.origin = origins(slim.layers, method.get("distill_loss"), for_method)
        _apply_bases(recipe, {k: v for k, v in slim.bases.items() if k in RUN_KEYS}, slim_config)
        _override(recipe, run, slim_config)
        recipe.notes += [*chosen, *(f"{key}: set by the slim file {slim_config}, overriding -c" for key in run)]
        for key in given:
            if key in method:
                raise UserError(f"-o {key}: set the method's parameters with -o distill.NAME=value, else edit its file")
    elif for_teacher or for_method:
        raise UserError("-o teacher.* and -o distill.* need --slim_config: without it there is no teacher")
    check_top_level(given, student, "-o")
    _settle(recipe, take(student, config) | take(given, "-o"), for_method)
    _override(recipe, given, "-o")
    if recipe.method is not None:
        complete(recipe.method, student, slim.own)
    if "architecture" not in student:
        raise UserError(f"{config}: no `architecture`, so there is no detector to build (is a _BASE_ missing?)")
    check_shape(student, origin)
    recipe.notes += unread_reader_keys(student, origin)
    _take_own_weights(recipe, runs)
    expand_own_data(student)
    if slim_config is not None:
        named = recipe.method.options.get("teachers")
        recipe.teachers = read_teachers(slim.bases, of_teacher, for_teacher, named, student, slim_config)
    return recipe


def _take_own_weights(recipe, runs):
    """Let ``weights`` that a file names of its own run be those of this config's, where this command has its runs.

    Args:
        recipe: `Recipe`, settled.
        runs: ``save_dir`` as the files have it.
    """
    folder, file = os.path.split(str(recipe.student.get("weights") or ""))
    above, owner = os.path.split(folder)
    if owner != _name_of(str(recipe.origin.get("weights"))):
        return  # given, or of somebody else's run
    if os.path.normpath(above) == runs:
        above = str(recipe.student.get("save_dir"))
    recipe.student["weights"] = os.path.join(above, recipe.name, file)


def _settle(recipe, settings, for_method):
    """Let ``epochs``, ``imgsz`` and ``batch`` change what the files say."""
    if settings:
        check_shape(recipe.student, recipe.origin)  # of what is moved and scaled
    changed, move = settle(recipe.student, settings)
    if recipe.method is not None:
        settle_method(recipe.method.options, for_method, move)
    told = ", ".join(f"{key} {value}" for key, value in settings.items())
    recipe.origin.update(dict.fromkeys(changed, told))
    if changed:
        recipe.notes.append(f"{told}: moved {', '.join(changed)}")


def _name_of(config):
    return safe_name(os.path.splitext(os.path.basename(config))[0]) or "model"


@dataclass
class SlimFile:
    """A slim file, sorted.

    Attributes:
        own: what the file itself says, and what of its bases is about the method.
        bases: what else its bases say: the teacher.
        layers: ``(path, keys)`` of all files, from the lowest base to the file itself.
    """

    own: dict
    bases: dict
    layers: list

    @property
    def run(self):
        """Its own keys of the run."""
        return {k: v for k, v in self.own.items() if k in RUN_KEYS}

    @property
    def method(self):
        """Its keys of the method."""
        return {k: v for k, v in self.own.items() if k in METHOD_KEYS or k == self.own.get("distill_loss")}

    @property
    def of_teacher(self):
        """Its own keys of the teacher's config."""
        return {k: v for k, v in self.own.items() if k not in self.run and k not in self.method}


def _read_slim(path):
    """The slim file split into method-carrying own keys and the teacher's bases.

    PaddleDetection lets a slim file inherit from another slim file: method keys found in the bases count as own.
    """
    own, layers = read_with_bases(path)
    for file, values in layers:  # `own` is the last of them
        name_the_teacher(values, file)
        resolve_paths(values, file)
    base, _ = _merged(layers[:-1])
    inherited = {k: base.pop(k) for k in list(base) if k in METHOD_KEYS}
    loss = own.get("distill_loss", inherited.get("distill_loss"))
    if isinstance(loss, str) and loss in base:
        inherited[loss] = base.pop(loss)
    own = merge(inherited, own)
    kind = own.get("slim")
    if kind is None:
        hint = "; it looks like a detector's own config, which goes to -c" if "architecture" in own | base else ""
        raise UserError(f"{path}: no `slim: Distill` in it or its bases, so it is no slim file{hint}")
    if kind != "Distill":
        raise UserError(f"{path}: `slim: {kind}` is not distillation; ppkd handles `slim: Distill`")
    for key in own:
        if key in ("terms", "teachers", "plugins"):
            raise UserError(f"{path}: `{key}:` belongs below `distill:`")
    known = set(METHOD_KEYS) | set(RUN_KEYS) | set(base) | {str(loss)}
    check_top_level(own, known, path)
    return SlimFile(own, base, layers)


def _apply_bases(recipe, values, path):
    """Say which keys of the teacher's bases would have changed the run under PaddleDetection, or let them.

    PaddleDetection merges the whole slim file over the student's, so that schedule, readers and output name silently
    become the teacher's. Here they do so with ``distill.upstream_merge=true`` only.
    """
    differing = [key for key, value in values.items() if recipe.student.get(key) != value]
    wanted = recipe.method.options.get("upstream_merge", False)
    if not isinstance(wanted, bool):
        raise UserError(f"{path}: distill.upstream_merge has to be true or false, found {wanted!r}")
    if wanted:
        _override(recipe, clone(values), path)
        recipe.name = _name_of(path)
        recipe.notes += [f"{key}: set by the bases of {path} (distill.upstream_merge)" for key in differing]
    elif differing:
        recipe.notes.append(
            f"not applied to the run, since the bases of {path} describe the teacher: {', '.join(sorted(differing))} "
            "(PaddleDetection applies them; -o distill.upstream_merge=true does so here)"
        )


def _fields(given, prefix):
    """Take what ``-o prefix.key=value`` set out of the parsed overrides."""
    values = given.pop(prefix, None)
    if not isinstance(values, dict | None):
        raise UserError(f"-o {prefix}={values}: has fields to set, for example -o {_EXAMPLES[prefix]}")
    return values or {}


_EXAMPLES = {"teacher": "teacher.pretrain_weights=PATH", "distill": "distill.stop_epoch=10"}


def _merged(layers):
    config, origin = {}, {}
    for path, own in layers:
        merge(config, own)
        origin.update(dict.fromkeys(own, path))
    return config, origin


def _override(recipe, values, source):
    check_fields(recipe.student, values, source)
    merge(recipe.student, values)
    recipe.origin.update(dict.fromkeys(values, source))
