"""compat/zero_dim.py is needed: with plain Paddle in one of its modules the detector that uses it still fails."""

import importlib

import paddle
import pytest

from ppkd.build import build_student
from ppkd.evaluation import evaluate
from ppkd.workspace import scope
from tests.conftest import training_batch

MODULES = {
    "heads.cascade_head": ("cascade_rcnn", "train"),
    "heads.tood_head": ("tood", "train"),
    "layers": ("solov2", "evaluate"),
    "post_process": ("faster_rcnn", "evaluate"),
    "proposal_generator.rpn_head": ("faster_rcnn", "train"),
    "proposal_generator.target": ("faster_rcnn", "train"),
}
# An untrained SOLOv2 gives every class about this score.
DETECTS = ["SOLOv2Head.score_threshold=0.005"]
AXIS = r"axis is expected to be in range of \[0, 0\)"
FAILS = AXIS + "|same dimension|input's rank|shape of input"


def use(loaded, how):
    """Train one step, or evaluate."""
    student = build_student(loaded)
    if how == "train":
        student.train()
        return float(student(training_batch(loaded))["loss"])
    with scope(loaded.student) as table:
        return evaluate(student, table)


@pytest.mark.parametrize("name", MODULES)
def test_without_the_patched_concat_numbers_do_not_join(name, recipe, monkeypatch):
    """Once a module works with Paddle's own, upstream has mended it and its entry can go."""
    family, how = MODULES[name]
    loaded = recipe(family, distil=False, overrides=DETECTS if family == "solov2" else [])
    assert use(loaded, how)
    module = importlib.import_module(f"ppdet.modeling.{name}")
    monkeypatch.delitem(vars(module.paddle), "concat")
    with pytest.raises(ValueError, match=FAILS):
        use(loaded, how)


def test_without_the_patched_cast_solov2_takes_element_0_of_a_number(recipe, monkeypatch):
    loaded = recipe("solov2", distil=False)
    module = importlib.import_module("ppdet.modeling.heads.solov2_head")
    monkeypatch.delitem(vars(module.paddle), "cast")
    with pytest.raises(IndexError):
        use(loaded, "evaluate")


def test_only_these_modules_see_the_patch():
    from ppdet.modeling.heads import bbox_head, tood_head

    number = paddle.to_tensor(3)
    assert tood_head.paddle.concat([number, paddle.to_tensor([4])]).tolist() == [3, 4]
    assert tood_head.paddle.zeros is paddle.zeros and bbox_head.paddle is paddle
    with pytest.raises(ValueError, match=AXIS):
        paddle.concat([number, number])
