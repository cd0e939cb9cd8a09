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
from ppkd.recipe.recipe import MethodSpec, Recipe
from ppkd.recipe.teachers import RESERVED, TeacherSpec

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
    configs = {name: value for name, value in content.items() if name not in RESERVED}
    recipe = Recipe(os.path.basename(os.path.abspath(folder)), content[RUN])
    method = content.get(DISTILL)
    if configs and method is None:
        raise UserError(
            f"{path}: has a teacher and no `{DISTILL}:`: the run is of a version of ppkd that did not record its "
            "method; train it again"
        )
    if method is not None:
        recipe.method = MethodSpec(**{key: clone(method[key]) for key in _METHOD if key in method})
        for name, config in configs.items():
            own = (method.get("teachers") or {}).get(name) or {}
            weights = config.get("pretrain_weights")
            recipe.teachers[name] = TeacherSpec(config, weights, path, own.get("weight", 1), own.get("input_scale", 1))
    return recipe, content.get(VERSIONS) or {}
