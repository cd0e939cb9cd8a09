"""Images without labels beside the labelled ones of a step: what the student's loss sees, and what terms come to."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.bad_images import STAND_IN
from ppkd.bridge.unlabelled import KEY
from ppkd.bridge.workspace import build_detector
from ppkd.detectors.context import Context
from ppkd.engine.model import DistillModel
from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_training import FOUR, differing, settle, terms_of

# Features in any images; a loss of classes and edges that asks for no labels, but takes the assignment if there is one.
TERMS = (
    "distill.terms={both: {student: 'neck[*]', student_connector: align, loss: pkd, weight: 3}, "
    "own: {student: 'neck[0]', student_connector: align, loss: pkd, weight: 2, on: labelled}, "
    "other: {student: 'neck[1]', student_connector: align, loss: mimic, weight: 2, on: unlabelled}}"
)


@pytest.fixture
def built(shapes, tmp_path):
    """Function that builds the model of some terms, with or without images beside; and a labelled and another batch."""

    def build(*overrides, beside=True):
        slim = tmp_path / "terms.yml"
        slim.write_text(f"_BASE_: [{CONFIGS}/ppyoloe_wide.yml]\nslim: Distill\npretrain_weights: none.pdparams\n")
        given = [FOUR, f"dataset_dir={shapes}", *overrides]
        loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(slim), given)
        paddle.seed(3)
        student, teacher = (
            enliven(build_detector(config)) for config in (loaded.student, loaded.teachers["teacher"].config)
        )
        model = DistillModel(student, {"teacher": teacher}, plan(loaded.method), beside=beside)
        settle(student)
        return model, training_batch(loaded), training_batch(loaded, 1)

    return build


def step(model, batch, other=None, **more):
    given = dict(batch)
    if other is not None:
        given[KEY] = {**other, **more}
    return {name: value.numpy() for name, value in model(given).items()}


def test_the_detection_loss_sees_labelled_images_only(built):
    model, batch, other = built(TERMS)
    alone = {name: value.numpy() for name, value in model.student(dict(batch)).items()}
    losses = step(model, batch, other)
    own = [name for name in alone if name != "loss"]
    assert own and differing({n: alone[n] for n in own}, {n: losses[n] for n in own}) == []
    added = sum(float(value) for name, value in losses.items() if name.startswith(("both", "own", "other")))
    assert float(losses["loss"]) == pytest.approx(float(alone["loss"]) + added, rel=1e-5)
    # And no label of the others matters.
    assert differing(losses, step(model, batch, other, gt_bbox=other["gt_bbox"] * 0 + 3)) == []


def test_a_term_is_the_mean_over_the_images_that_it_is_on(built):
    model, batch, other = built(TERMS)
    other = {
        key: value[:2] if hasattr(value, "shape") and value.shape[:1] == [4] else value for key, value in other.items()
    }
    found, first, second = step(model, batch, other), step(model, batch), step(model, other)
    for name in terms_of(found, model):
        if name.startswith("both"):
            assert found[name] == pytest.approx((4 * first[name] + 2 * second[name]) / 6, rel=1e-4), name
        if name.startswith("own"):
            assert found[name] == pytest.approx(first[name]), name
    assert [name for name in first if name.startswith("other")] == [] and found["other.s16"] > 0


def test_the_gradient_comes_from_images_of_both_kinds(built):
    model, batch, other = built(TERMS)
    gradients = []
    for pixels in (other["image"], other["image"] * 0.5):
        model.clear_gradients()
        model({**batch, KEY: {**other, "image": pixels}})["loss"].backward()
        gradients.append(model.student.backbone.stem.conv1.conv.weight.grad.numpy().copy())
    model.clear_gradients()
    model(dict(batch))["loss"].backward()
    alone = model.student.backbone.stem.conv1.conv.weight.grad.numpy()
    assert np.abs(gradients[0] - gradients[1]).max() > 0 and np.abs(gradients[0] - alone).max() > 0


def test_a_stand_in_counts_nothing_and_an_empty_batch_is_none(built):
    model, batch, other = built(TERMS)
    alone, stood = step(model, batch), step(model, batch, other, **{STAND_IN: paddle.zeros([1])})
    assert stood.pop("other.s16") == 0 and differing(alone, stood) == []
    assert differing(alone, {k: v.numpy() for k, v in model({**batch, KEY: {}}).items()}) == []


def test_pp_yoloes_logits_take_the_teachers_scores_for_weights(built):
    sources = "['head.cls[*]', 'head.box_dist[*]']"
    model, batch, other = built(
        f"distill.terms={{logits: {{student: {sources}, loss: {{name: ppyoloe}}, on: unlabelled}}}}"
    )
    with paddle.no_grad():
        for conv in model.teachers["teacher"].yolo_head.pred_cls:
            conv.bias.set_value(conv.bias * 0)
    found = step(model, batch, other)
    assert {"logits.class", "logits.iou", "logits.dfl"} <= set(found) and np.isfinite(found["logits.class"])
    with paddle.no_grad():
        for conv in model.teachers["teacher"].yolo_head.pred_cls:
            conv.bias.set_value(conv.bias * 0 - 20)  # it sees nothing anywhere
    nothing = step(model, batch, other)
    assert found["logits.iou"] > 0 and nothing["logits.iou"] == 0


def test_what_labels_tell_is_none_without(shapes):
    context = Context({"ppkd_boxes": paddle.ones([1, 2, 4])}, labels=False)
    assert context.boxes is None and context.classes is None and context.assignment is None


TERM = "distill.terms={{mine: {{student: 'neck[*]', student_connector: align, loss: {loss}, on: {on}{more}}}}}"


@pytest.mark.parametrize(
    ("loss", "on", "more", "beside", "told"),
    [
        ("fgd", "all", "", True, "mine.on: all: loss fgd asks for boxes"),
        ("fgd", "unlabelled", "", True, "mine.on: unlabelled: loss fgd asks for boxes"),
        ("pkd", "unlabelled", "", False, "no images without labels; unlabelled: FOLDER"),
        ("pkd", "unlabelled", ", magnitude: 10% of gradient", True, "magnitude: 10% of gradient goes by"),
        ("pkd", "unlabelled", ", stop: auto", True, "stop: auto goes by"),
        ("pkd", "none", "", True, "on has to be one of labelled, unlabelled, all"),
    ],
)
def test_what_cannot_be_is_refused_by_name(loss, on, more, beside, told, built):
    with pytest.raises(UserError, match=told):
        built(TERM.format(loss=loss, on=on, more=more), beside=beside)


@pytest.mark.parametrize("beside", [True, False])
def test_by_default_a_term_is_on_all_images_that_its_loss_can_do_with(beside, built):
    terms = ", ".join(
        f"{name}: {{student: 'neck[*]', student_connector: align, loss: {name}}}"
        for name in ("fgd", "pkd", "cwd", "mimic")
    )
    model, *_ = built(f"distill.terms={{{terms}}}", beside=beside)
    on = {term.spec.name: term.on for term in model.terms}
    assert on == {"fgd": "labelled", **dict.fromkeys(("pkd", "cwd", "mimic"), "all" if beside else "labelled")}
