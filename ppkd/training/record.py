"""``recipe.yml``, what a run leaves of its recipe: written when it begins, read back to evaluate and compare it.

``run`` is the student's and the run's config, each teacher's config stands under the teacher's name, ``distill`` is the
method in the slim file's own keys, ``versions`` says what ran, and what was cured of it (`bridge.host`).
Each of the configs can be given to ``-c`` again.
"""

import os
from dataclasses import fields

from ppkd.bridge.host import record_of_host
from ppkd.errors import UserError
from ppkd.files.class_names import KEY
from ppkd.files.yaml_io import clone, dump, read_yaml
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.recipe import Recipe
from ppkd.recipe.shape import check_shape
from ppkd.recipe.teachers import RESERVED, TeacherSpec, positive

FILE = "recipe.yml"
RUN, DISTILL, VERSIONS = "run", "distill", "versions"
# Who set which key is for messages at the time of training.
_METHOD = [field.name for field in fields(MethodSpec) if field.name != "origin"]


def record(recipe, names=None):
    """What ``recipe.yml`` holds, as text.

    Args:
        recipe: `recipe.Recipe`.
        names: of the classes, or None where they are not known.
    """
    content = {RUN: recipe.student | ({KEY: names} if names else {})}
    content |= {name: spec.config for name, spec in recipe.teachers.items()}
    if recipe.method is not None:
        content[DISTILL] = {key: getattr(recipe.method, key) for key in _METHOD}
        content[DISTILL]["teachers"] = {
            name: {"file": spec.file, "weight": spec.weight, "input_scale": spec.input_scale}
            for name, spec in recipe.teachers.items()
        }
    return dump(content | {VERSIONS: record_of_host()})


def read_record(folder):
    """The recipe of the run in `folder`.

    Returns:
        ``(recipe.Recipe, versions)``; the versions are empty for a run that did not record them.

    Raises:
        UserError: no such file, no run's file, or a distilled run whose method was not recorded.
    """
    path = os.path.join(folder, FILE)
    content = read_yaml(path)
    if not isinstance(content.get(RUN), dict):
        raise UserError(f"{path}: not the record of a run: no `{RUN}:` in it")
    _check_run(content[RUN], path)
    configs = {name: value for name, value in content.items() if name not in RESERVED}
    run = content[RUN]
    recipe = Recipe(os.path.basename(os.path.abspath(folder)), run, origin=dict.fromkeys(run, f"{path}: {RUN}"))
    check_shape(run, recipe.origin)
    method = content.get(DISTILL)
    if configs and method is None:
        raise UserError(
            f"{path}: has a teacher and no `{DISTILL}:`: the run is of a version of ppkd that did not record its "
            "method; train it again"
        )
    if method is not None:
        recipe.method = _method(method, f"{path}: {DISTILL}")
        for name, config in configs.items():
            recipe.teachers[name] = _teacher(name, config, method.get("teachers") or {}, path)
        if not configs:
            raise UserError(f"{path}: has `{DISTILL}:` and no teacher")
    found = content.get(VERSIONS) or {}
    if not isinstance(found, dict):
        raise UserError(f"{path}: {VERSIONS} has to be a mapping, found {found!r}")
    return recipe, {str(k): v if isinstance(v, dict | list) else str(v) for k, v in found.items()}


def how_trained(weights):
    """How a detector came to be, in words, by the ``recipe.yml`` beside its weights; None where there is none.

    Raises:
        UserError: the file is there and is no YAML.
    """
    path = os.path.join(os.path.dirname(weights), FILE)
    if not os.path.isfile(path):
        return None
    method = read_yaml(path).get(DISTILL)
    return f"was itself taught by {method['name']}" if isinstance(method, dict) and "name" in method else (
        "was trained without a teacher"
    )


def _check_run(run, where):
    _check_config(run, f"{where}: {RUN}")
    for key in ("save_dir", "dataset_dir"):
        if not isinstance(run.get(key), str | None):
            raise UserError(f"{where}: {RUN}.{key} has to be a path, found {run[key]!r}")


def _check_config(config, where):
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise UserError(f"{where} describes no detector: no `architecture` in it")
    odd = [key for key in config if not isinstance(key, str)]
    if odd:
        raise UserError(f"{where}: a key has to be a name, found {odd[0]!r}")


# Fields of a `MethodSpec` and what they are.
_KINDS = {
    "name": str, "params": dict, "levels": int | None, "options": dict, "file": str, "architecture": str,
    "epochs": int | None,
}  # fmt: skip


def _method(method, where):
    if not isinstance(method, dict) or "name" not in method:
        raise UserError(f"{where} has to be a mapping with the name of a method, found {method!r}")
    for key in _METHOD:
        if key in method and (not isinstance(method[key], _KINDS[key]) or isinstance(method[key], bool)):
            raise UserError(f"{where}.{key} is of another kind than a run records: {method[key]!r}")
        for inner in method[key] if isinstance(method.get(key), dict) else ():
            if not isinstance(inner, str):
                raise UserError(f"{where}.{key}: a key has to be a name, found {inner!r}")
    plugins = method.get("options", {}).get("plugins") or []
    if not isinstance(plugins, list) or not all(isinstance(item, str) for item in plugins):
        raise UserError(f"{where}.options.plugins has to be a list of paths, found {plugins!r}")
    return MethodSpec(**{key: clone(method[key]) for key in _METHOD if key in method})


def _teacher(name, config, noted, path):
    if not isinstance(name, str):
        raise UserError(f"{path}: a key has to be a name, found {name!r}")
    _check_config(config, f"{path}: {name}")
    check_shape(config, dict.fromkeys(config, f"{path}: {name}"))
    weights, own = config.get("pretrain_weights"), noted.get(name) or {} if isinstance(noted, dict) else None
    if not isinstance(own, dict):
        raise UserError(f"{path}: {DISTILL}.teachers has to be a mapping of mappings, found {noted!r}")
    if not isinstance(weights, str | None):
        raise UserError(f"{path}: {name}.pretrain_weights has to be a path or a URL, found {weights!r}")
    where = f"{path}: {DISTILL}.teachers.{name}"
    numbers = [positive(own.get(key, 1), f"{where}.{key}") for key in ("weight", "input_scale")]
    return TeacherSpec(config, weights, path, *numbers)
