"""Recipes of any content: a Recipe and a Plan, or a UserError."""

import math
import os
import pathlib

from hypothesis import strategies as st

from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged, clone, dump, flow
from ppkd.methods import NAMES, plan
from ppkd.methods.block import TERM_KEYS
from ppkd.recipe.plan import Plan, TermSpec
from ppkd.recipe.recipe import Recipe, load_recipe
from tests.conftest import CONFIGS
from tests.fuzz.inputs import inputs
from tests.fuzz.test_grammars import ANYTHING

STUDENT, WIDE = (str(CONFIGS / f"retinanet_{name}.yml") for name in ("tiny", "wide"))
SLIM = {
    "_BASE_": [WIDE],
    "slim": "Distill",
    "slim_method": "FGD",
    "distill_loss": "FGDFeatureLoss",
    "distill_loss_name": ["neck_0", "neck_1"],
    "FGDFeatureLoss": {"temp": 0.5, "alpha_fgd": 0.001},
    "pretrain_weights": "none.pdparams",
    "epoch": 3,
    "distill": {
        "inherit": False,
        "decay": "cosine",
        "final_weight": 0.5,
        "stop_epoch": 2,
        "teachers": {"second": {"config": WIDE, "pretrain_weights": "none.pdparams", "weight": 0.5}},
        "terms": {
            "a": {"student": "neck[*]", "teacher": "neck[s8,s16]", "loss": {"name": "cwd", "tau": 1.0},
                  "magnitude": "20%"},
            "b": {"student": ["neck[*]", "head.cls[*]"], "loss": "score_l2"},
            "c": {"student": "neck[0]", "loss": "l2", "student_connector": ["align", {"name": "resize"}]},
        },
    },
}
PATHS = [
    *((key,) for key in [*SLIM, "odd", "terms", "dataset_dir", "LearningRate", "TrainReader", "num_classes",
                         "RetinaNet"]),
    *(("FGDFeatureLoss", key) for key in ("temp", "alpha_fgd", "odd", "weight")),
    *(("distill", key) for key in [*SLIM["distill"], "start_epoch", "warmup_epochs", "plugins", "numerics",
                                   "upstream_merge", "odd"]),
    *(("distill", "teachers", key) for key in ("second", "teacher", "student", "1 2")),
    *(("distill", "teachers", "second", key) for key in ("config", "pretrain_weights", "weight", "input_scale", "FPN",
                                                         "num_classes", "epoch", "slim")),
    *(("distill", "terms", key) for key in ("a", "b", "c d", 3)),
    *(("distill", "terms", "a", key) for key in TERM_KEYS),
    ("distill", "terms", "a", "loss", "name"), ("distill", "terms", "a", "loss", "tau"),
    ("distill", "terms", "c", "student_connector", 1), ("_BASE_", 0), ("distill_loss_name", 0),
]  # fmt: skip
VALUES = ANYTHING | st.sampled_from([*NAMES, "align", "bn", "projector", "fgd", "none.py", ["none.py"], [], {}, [[]],
                                     "second", "teacher", ["second"], WIDE, {"name": "cwd"}, {"name": []}])  # fmt: skip
CHANGES = st.lists(st.tuples(st.sampled_from(PATHS), VALUES), max_size=2)
GONE = st.lists(st.sampled_from([path for path in PATHS if isinstance(path[-1], str)]), max_size=1)


_OUT = object()


def changed(changes, gone):
    """The slim file with some of its values changed or left out."""
    slim = clone(SLIM)
    for path, value in [*changes, *((path, _OUT) for path in gone)]:
        _put(slim, path, value)
    return slim


def _put(here, path, value):
    key, *rest = path
    if isinstance(here, list):
        if not isinstance(key, int) or key >= len(here):
            return
    elif not isinstance(here, dict):
        return
    if rest:
        _put(here.get(key) if isinstance(here, dict) else here[key], rest, value)
    elif value is not _OUT:
        here[key] = clone(value)
    elif isinstance(here, dict):
        here.pop(key, None)


KEYS = ["epoch", "num_classes", "dataset_dir", "TrainReader", "TrainReader.batch_size", "RetinaNet.backbone", "odd",
        "a.b.c", "distill.loss_weight", "distill.inherit", "distill.terms.x.student", "teacher.pretrain_weights",
        "teacher.FPN.a", "architecture", "LearningRate.base_lr", "save_dir", "seed", "allow_outside", "", ".",
        "a..b", "train_images", "EvalReader", "epochs", "imgsz", "batch",
        "train_annotations", "allow_empty", "stages", "TrainDataset"]  # fmt: skip
OVERRIDES = st.just([]) | st.lists(
    st.tuples(st.sampled_from(KEYS), ANYTHING.map(flow) | st.text(max_size=6)).map("=".join) | st.text(max_size=8),
    max_size=2,
)


def check(recipe):
    assert isinstance(recipe, Recipe) and isinstance(recipe.student, dict)
    assert os.path.basename(recipe.output_dir) == "student" or recipe.method is not None
    for teacher in recipe.teachers.values():
        assert isinstance(teacher.config, dict) and not isinstance(teacher.config, Tagged)
        assert math.isfinite(teacher.weight) and teacher.weight > 0
    if recipe.method is not None:
        made = plan(recipe.method)
        assert isinstance(made, Plan) and made.terms and all(isinstance(term, TermSpec) for term in made.terms)


def test_recipes(tmp_path_factory, quiet):
    import_ppdet()  # whose code may run
    folder = tmp_path_factory.mktemp("fuzz")
    config, slim = folder / "student.yml", folder / "slim.yml"
    base = {"_BASE_": [STUDENT], "num_classes": 3, "dataset_dir": None}
    names = st.sampled_from([key for key in KEYS if key.isidentifier()])
    students = st.just({}) | st.dictionaries(names, ANYTHING, max_size=2)

    @inputs(students, st.none() | st.builds(changed, CHANGES, GONE), OVERRIDES)
    def run(keys, slim_keys, overrides):
        config.write_text(dump(base | keys), encoding="utf-8", errors="replace")
        slim.write_text(dump(slim_keys or {}), encoding="utf-8", errors="replace")
        try:
            with quiet():
                recipe = load_recipe(str(config), None if slim_keys is None else str(slim), overrides)
                check(recipe)
        except UserError as error:
            assert str(error) and "\n" not in str(error).strip() or any("\n" in text for text in overrides)

    config.write_text(dump(base))
    slim.write_text(dump(SLIM))
    check(load_recipe(str(config), str(slim)))  # unchanged it is good
    run()
    assert sorted(path.name for path in pathlib.Path(folder).iterdir()) == ["slim.yml", "student.yml"]
