"""A student's or a teacher's config with odd values anywhere: a training begins with it, or it is refused in a line."""

import warnings

import pytest
from hypothesis import strategies as st

from ppkd.bridge import room
from ppkd.bridge.own_data import expand_own_data
from ppkd.bridge.workspace import import_ppdet
from ppkd.build import build_teacher
from ppkd.engine.teacher_inputs import preparation_for
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged, clone
from ppkd.recipe.keys import RUN_KEYS, STUDENT_KEYS
from ppkd.recipe.recipe import Recipe, load_recipe
from ppkd.recipe.settings import settle, take
from ppkd.recipe.shape import check_shape
from ppkd.recipe.teachers import read_teachers
from ppkd.terminal.log import quiet as silent
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS, FAMILIES
from tests.fuzz.changes import changed, changes_of
from tests.fuzz.inputs import inputs
from tests.fuzz.test_grammars import ANYTHING

_DEEP = []
for _ in range(40):
    _DEEP = [_DEEP, {"a": _DEEP}] if len(str(_DEEP)) < 40 else [_DEEP]
# Schedules and data sets as tags, which stand for objects: right ones, and of odd values, and in wrong places.
TAGS = [
    Tagged("COCODataSet", {"dataset_dir": 3}), Tagged("COCODataSet"), Tagged("VOCDataSet"), Tagged("ImageFolder"),
    Tagged("MOTImageFolder"), Tagged("Nothing"), Tagged("PiecewiseDecay", args=[1, "x"]), Tagged("CosineDecay"),
    Tagged("PiecewiseDecay", {"milestones": None}), Tagged("LinearWarmup", {"steps": "x"}),
    Tagged("Resize", {"target_size": [8]}),
]  # fmt: skip
# Those of sections whose items have names.
ITEMS = [
    [Tagged("CosineDecay", {"max_epochs": None}), Tagged("LinearWarmup", {"steps": None})],
    [{"name": "CosineDecay", "max_epochs": None}], [{"name": "PiecewiseDecay", "use_warmup": False, "gamma": [None]}],
    [{"name": "LinearWarmup"}, {"name": "CosineDecay"}], [{"Decode": None}], [{"Resize": 3}], [{"Resize": {"x": 1}}],
    [{"NormalizeImage": {"mean": 3, "std": [0, 0, 0]}}], [{1: {}}], [{}], [{"setup_logger": {}}], [{"a": []}, None],
    {"type": 3}, {"type": "os"}, {"type": "Momentum", "momentum": "x"}, {"name": "FPN"}, {"name": 1}, {"name": None},
]  # fmt: skip
ODD = st.one_of(
    ANYTHING.filter(lambda value: not _large(value)),
    st.sampled_from([-1, 0, 1.5, "", "x", "setup_logger", "os", "ResNet", "COCODataSet", [], {}, [[]], [None], {1: 2},
                     [1, 2, 3], ["x"], True, "a\nb", "\x00", "auto", 10**7, 10**30, 10**400, 1e308, _DEEP]),
    st.sampled_from(TAGS),
    st.sampled_from(ITEMS),
)  # fmt: skip


def _large(value):
    """Whether there is a number that a detector might have: what asks for a wide layer is slow, and not wrong."""
    if isinstance(value, dict):
        return any(map(_large, value.values())) or any(map(_large, value))
    if isinstance(value, list):
        return any(map(_large, value))
    return isinstance(value, int) and 64 < abs(value) <= 10**6


def unsaid(config):
    """Paths of keys that a run, or a class of ppdet, takes and the config does not say."""
    sections = [(name, schema.schema) for name, schema in import_ppdet().get_registered_modules().items()]
    inner = [(name, key) for name, keys in sections if isinstance(config.get(name), dict) for key in keys]
    found = [*((key,) for key in sorted(RUN_KEYS | STUDENT_KEYS)), *inner]
    return [path for path in found if path[-1] not in (config[path[0]] if len(path) == 2 else config)]


def begin(config, folder):
    """What a training does before its first step."""
    check_shape(config, dict.fromkeys(config, "student.yml"))
    settle(config, take(config, "student.yml"))
    check_shape(config, dict.fromkeys(config, "student.yml"))
    config["save_dir"] = folder
    expand_own_data(config)
    with Trainer.open(Recipe("student", config, origin=dict.fromkeys(config, "student.yml")), validate=True):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_students(family, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 3e8)  # a small machine
    monkeypatch.chdir(tmp_path)
    config = str(CONFIGS / f"{family}_tiny.yml")
    sound = load_recipe(config, overrides=[f"dataset_dir={shapes}", "worker_num=0"]).student

    @inputs(changes_of(sound, ODD, more=unsaid(sound)))
    def run(changes):
        try:
            with silent(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                begin(changed(sound, changes), str(tmp_path))
        except UserError as error:
            assert str(error)

    begin(clone(sound), str(tmp_path))
    run()


def test_teachers(shapes, monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 3e8)
    student, sound = (
        load_recipe(str(CONFIGS / f"{name}.yml"), overrides=[f"dataset_dir={shapes}"]).student
        for name in ("ppyoloe_tiny", "retinanet_tiny")
    )

    def build(config):
        (spec,) = read_teachers(config, {}, {}, None, student, "slim.yml").values()
        build_teacher(spec)
        preparation_for(student, spec)

    @inputs(changes_of(sound, ODD, more=unsaid(sound)))
    def run(changes):
        config = changed(sound, changes)
        try:
            with silent(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build(config)
        except UserError as error:
            assert str(error)

    build(clone(sound))
    run()
