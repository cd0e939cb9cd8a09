"""compat/ld_head.py is needed: the head of PaddleDetection's localisation distillation cannot train alone."""

from inspect import Parameter, signature, unwrap

import paddle
import pytest

from ppkd.bridge.workspace import build_detector
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS
from tests.engine.test_against_ppdet_slim import as_ld_student, gfl_batch, random_boxes
from tests.helpers_hosts import cured


@pytest.fixture
def step(shapes):
    """Function that gives the losses of a tiny GFL with that head or with the plain one, and the head."""
    config = load_recipe(str(CONFIGS / "gfl_tiny.yml"), None, [f"dataset_dir={shapes}"]).student
    batch = gfl_batch(config["num_classes"], random_boxes(2))

    def run(ld):
        paddle.seed(0)
        model = build_detector({**config, **as_ld_student(config)} if ld else config)
        return {name: float(value) for name, value in model(dict(batch)).items()}, model.head

    return run


def test_upstream_wants_a_teachers_outputs(step):
    from ppdet.modeling.heads.gfl_head import LDGFLHead

    own = signature(unwrap(LDGFLHead.get_loss)).parameters
    assert (own["soft_label_list"].default is Parameter.empty) == cured("let_ld_head_train_alone")


def test_the_head_alone_has_the_plain_loss(step):
    (alone, head), (plain, _) = step(True), step(False)
    assert type(head).__name__ == "LDGFLHead"
    assert alone == plain and alone["loss"] > 0
