"""A student's config with odd values anywhere: it is built as far as training builds it, or refused in a line."""

import warnings

import pytest
from hypothesis import strategies as st

from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import build_detector, create, import_ppdet, scope
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from ppkd.recipe.recipe import Recipe, check_counts, load_recipe
from ppkd.terminal.log import quiet as silent
from ppkd.training.averaging import Averaging
from ppkd.training.batch_size import BatchSize
from ppkd.training.evaluation import check_reader
from ppkd.training.learning_rate import learning_rate
from ppkd.training.precision import Precision
from ppkd.training.stages import Stages
from tests.fuzz.changes import changed, changes_of
from tests.fuzz.inputs import inputs
from tests.fuzz.test_grammars import ANYTHING
from tests.fuzz.test_recipe import STUDENT

# No large numbers: a config that asks for a layer of a billion channels is not wrong.
ODD = ANYTHING.filter(lambda value: not _large(value)) | st.sampled_from(
    [-1, 0, 1.5, "", "x", "setup_logger", "os", "ResNet", "COCODataSet", [], {}, [[]], [None], {"name": "FPN"},
     {"name": 1}, {1: 2}, [1, 2, 3], True, Tagged("COCODataSet", {"dataset_dir": 3}), Tagged("MOTImageFolder"),
     Tagged("Nothing"), Tagged("PiecewiseDecay", args=[1, "x"]), "a\nb", "\x00"]
)  # fmt: skip


def _large(value):
    if isinstance(value, dict):
        return any(map(_large, value.values())) or any(map(_large, value))
    if isinstance(value, list):
        return any(map(_large, value))
    return isinstance(value, (int, float)) and not -64 <= value <= 64


@pytest.fixture(scope="module")
def sound(shapes):
    import_ppdet()
    return load_recipe(STUDENT, overrides=[f"dataset_dir={shapes}", "worker_num=0"]).student


def build(config):
    """What a training does before its first step, but for weights."""
    check_counts(Recipe("student", config, origin=dict.fromkeys(config, "student.yml")))
    BatchSize(config, 1)
    with scope(config):
        check_reader(config)
        open_dataset("EvalDataset", config)
        loader = Stages(config, 0).loader(0)
        model = build_detector(config)
        optimizer = create("OptimizerBuilder", learning_rate(config, len(loader)), model)
        precision = Precision(config, False)
        precision.prepare(model, optimizer, ())
        Averaging(model, config, precision)


def test_students(sound):
    from ppkd.files.yaml_io import clone

    @inputs(changes_of(sound, ODD))
    def run(changes):
        try:
            with silent(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build(changed(sound, changes))
        except UserError as error:
            assert str(error)

    build(clone(sound))
    run()
