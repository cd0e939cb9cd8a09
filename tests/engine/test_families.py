"""Every detector with every method that fits all of them: a step of the tiny student beside its wide teacher."""

import random
from dataclasses import dataclass

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat import yolox_sizes
from ppkd.build import build_model, build_student
from ppkd.engine.model import TEACHER, DistillModel
from ppkd.methods import plan
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.detectors.test_detectors import HEADS, KINDS, PLACES, STRIDES, VARIANTS
from tests.helpers_training import differing, everything_in, first_images_with_boxes, terms_of

FAMILIES = [family for family in KINDS if family not in VARIANTS]
METHODS = ("FGD", "CWD", "PKD", "MGD", "Mimic")
LOGITS = ("head.cls", "head.objectness")
# In images of 64 pixels these levels have a single cell. It is all of its channel's mass, nothing but a sign once two
# of them are standardised, and may well be the one that is masked.
SINGLE_CELL = (64, 128)
OF_SEVERAL_CELLS = ("CWD", "PKD", "MGD")


@dataclass
class Pair:
    """A student and its teacher, a batch, and what the plain student makes of it."""

    family: str
    student: object
    teacher: object
    batch: dict
    losses: dict
    weights: dict

    def distilled(self, method):
        """A `DistillModel` of this pair, with CWD on the logits too, and the labels of its terms."""
        logits = [source for source in LOGITS if source in HEADS[self.family]] if method == "CWD" else []
        spec = MethodSpec(method, {"places": ["neck", *logits]} if logits else {})
        model = DistillModel(self.student, {TEACHER: self.teacher}, plan(spec))
        model.train()
        labels = [f"cwd_neck.s{s}" if method == "CWD" else f"{method.lower()}.s{s}" for s in STRIDES[self.family]]
        for source in logits:
            places = PLACES.get((self.family, source), STRIDES[self.family])
            labels += [f"cwd_{source[5:]}.{f'g{x[0]}' if isinstance(x, tuple) else f's{x}'}" for x in places]
        return model, labels


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, shapes):
    seed()
    configs = [str(CONFIGS / f"{request.param}_{size}.yml") for size in ("tiny", "wide")]
    small, wide = (load_recipe(config, overrides=[f"dataset_dir={shapes}"]) for config in configs)
    student, teacher = (enliven(build_student(loaded)) for loaded in (small, wide))
    batch = training_batch(small)
    student.train()
    seed()
    losses = {key: float(value) for key, value in student(copy_of(batch)).items()}
    return Pair(request.param, student, teacher, batch, losses, everything_in(teacher))


def seed():
    """The same start for what readers, samplers of regions, sizes and masks draw."""
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)
    yolox_sizes.GENERATOR.seed(0)


def copy_of(batch):
    """A batch of its own: YOLOX scales its boxes in place."""
    boxes = batch.get("gt_bbox")
    return {**batch, "gt_bbox": [x.clone() for x in boxes]} if isinstance(boxes, list) else dict(batch)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_teaches_the_students_backbone_on_every_level(method, pair):
    model, labels = pair.distilled(method)
    seen = []
    hook = pair.student.backbone.register_forward_post_hook(lambda *args: seen.append(args[-1]))
    seed()
    losses = model(copy_of(pair.batch))
    hook.remove()
    terms = terms_of(losses, model)
    assert [key for key, value in losses.items() if not np.isfinite(float(value))] == []
    assert [term.label for term in model.terms] == labels
    assert all(ours.place == theirs.place for term in model.terms for (ours,), (theirs,) in term.pairs)
    (features,) = seen
    for term in model.terms:
        value = sum(value for key, value in terms.items() if key.startswith(term.label))
        found = paddle.grad([value], features, retain_graph=True, allow_unused=True)
        found = [gradient for gradient in found if gradient is not None]
        assert found and all(np.isfinite(gradient.numpy()).all() for gradient in found), term.label
        if not (method in OF_SEVERAL_CELLS and term.pairs[0][0][0].stride in SINGLE_CELL):
            assert float(value) > 0 and max(float(gradient.abs().max()) for gradient in found) > 0, term.label
    losses["loss"].backward()
    moved = [p.grad is not None and float(p.grad.abs().max()) > 0 for p in pair.student.backbone.parameters()]
    assert any(moved)
    pair.student.clear_gradients()
    assert differing(everything_in(pair.teacher), pair.weights) == []
    # What the student itself loses is what the plain one does.
    own = {key: float(value) for key, value in losses.items() if key not in terms}
    whole = own.pop("loss")
    assert own == {key: value for key, value in pair.losses.items() if key != "loss"}
    assert whole == pytest.approx(pair.losses["loss"] + sum(float(value) for value in terms.values()), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("with_boxes", [0, 1])
def test_images_without_boxes_give_a_finite_loss_that_reaches_the_backbone(
    with_boxes, family, recipe, shapes, tmp_path
):
    loaded = recipe(family, "FGD", overrides=first_images_with_boxes(shapes, tmp_path / "few", with_boxes))
    batch, model = training_batch(loaded), build_model(loaded)
    model.train()
    assert [bool(boxes.numpy().any()) for boxes in batch["ppkd_boxes_valid"]] == [with_boxes > 0, False]
    losses = model(batch)
    losses["loss"].backward()
    assert [key for key, value in losses.items() if not np.isfinite(float(value))] == []
    gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
    assert gradients and all(np.isfinite(gradient.numpy()).all() for gradient in gradients)
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.student.backbone.parameters())
