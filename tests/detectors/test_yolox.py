"""YOLOX resizes its batch inside of its own forward: beside it a teacher has to see what it sees."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat import yolox_sizes
from ppkd.bridge.ground_truth import BOXES
from ppkd.build import build_model, build_student
from ppkd.detectors import detector_for
from ppkd.engine import together
from ppkd.engine.model import TEACHER
from tests.conftest import training_batch
from tests.helpers_training import differing, everything_in, fail

# Sizes that stretch height and width unlike: 64 x 96 pixels become 96 x 128.
UNEVEN = ["YOLOX.input_size=[64, 96]", "YOLOX.size_range=[3, 3]"]


@pytest.fixture
def distilled(recipe):
    """Function from overrides to a `DistillModel` of YOLOX in training, and its first batch."""

    def make(*overrides):
        loaded = recipe("yolox", "FGD", overrides=overrides)
        model = build_model(loaded)
        model.train()
        return model, training_batch(loaded)

    return make


def uneven(batch):
    """The batch with images of 64 x 96 pixels, the last 32 columns of which are padding."""
    return {**batch, "image": paddle.rand([2, 3, 64, 96])}


def images_into(layer, seen):
    """Have `seen` take the image of every batch that `layer` is called with."""
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["image"]))
    return seen


def test_the_teacher_sees_the_resized_image_that_the_student_trains_on(distilled):
    model, batch = distilled(*UNEVEN)
    student, teacher = (images_into(one.backbone, []) for one in (model.student, model.teachers[TEACHER]))
    model(uneven(batch))
    assert [x.shape[2:] for x in student] == [x.shape[2:] for x in teacher] == [[96, 128]]
    assert differing(student, teacher) == []


def test_boxes_and_sizes_of_the_context_are_scaled_as_the_image_is(distilled, monkeypatch):
    model, batch = distilled(*UNEVEN)
    contexts, compare = [], together.compare_all
    monkeypatch.setattr("ppkd.engine.model.compare_all", lambda *given: contexts.append(given[-1]) or compare(*given))
    given = uneven(batch)
    model(given)
    factor = np.array([96 / 64, 128 / 96], "float32")  # of height and of width
    context = contexts[0]
    assert context.padded_size == (96, 128)
    np.testing.assert_allclose(context.image_size.numpy(), given["im_shape"].numpy() * factor, rtol=1e-6)
    np.testing.assert_allclose(context.boxes.numpy(), given[BOXES].numpy() * [*factor[::-1], *factor[::-1]], rtol=1e-6)
    # The student's own boxes, which the model itself scales, are the same.
    for kept, own, valid in zip(context.boxes, model.student.inputs["gt_bbox"], context.boxes_valid):
        np.testing.assert_allclose(kept[: len(own)].numpy(), own.numpy(), rtol=1e-6)
        assert int(valid.sum()) == len(own) > 0


def test_a_batch_without_kept_boxes_is_prepared_too(distilled):
    model, batch = distilled(*UNEVEN)
    adapter = detector_for(model.student)
    with adapter.prepared({key: value for key, value in uneven(batch).items() if key != BOXES}) as seen:
        assert BOXES not in seen and seen["image"].shape[2:] == [96, 128]


@pytest.mark.parametrize("broken", [None, "student", "teacher"])
def test_the_model_resizes_once_and_is_as_before_afterwards(broken, distilled, monkeypatch):
    model, batch = distilled(*UNEVEN)
    resized, original = [], type(model.student)._preprocess
    monkeypatch.setattr(type(model.student), "_preprocess", lambda self: resized.append(self) or original(self))
    before, given = set(vars(model.student)), copies(batch)
    if broken:
        side = model.student if broken == "student" else model.teachers[TEACHER]
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(side.backbone, "forward", fail, raising=False)
            model(batch)
    else:
        model(batch)
    assert [one is model.student for one in resized] == [True]
    assert set(vars(model.student)) == before
    assert differing(copies(batch), given) == [], "the caller's batch"
    model.student(dict(batch))
    assert len(resized) == 2, "a plain step resizes again"


def copies(batch):
    """The tensors of a batch as copied arrays."""
    return {key: [x.numpy().copy() for x in value] for key, value in batch.items() if key != "epoch_id"}


def test_sizes_are_drawn_as_plain_ppdet_draws_them(distilled, recipe):
    overrides = ["YOLOX.size_range=[2, 9]", "YOLOX.random_interval=2"]
    model, batch = distilled(*overrides)
    plain = build_student(recipe("yolox", distil=False, overrides=overrides))
    plain.train()
    drawn = []
    for runner, student in ((model, model.student), (plain, plain)):
        seen = images_into(student.backbone, [])
        yolox_sizes.GENERATOR.seed(5)
        for _ in range(4):
            runner({**batch, "gt_bbox": [boxes.clone() for boxes in batch["gt_bbox"]]})
        drawn.append([x.shape[2:] for x in seen])
    assert drawn[0] == drawn[1]
    assert drawn[0][0] == drawn[0][1] != drawn[0][2] == drawn[0][3]


def test_without_terms_the_student_resizes_by_itself(distilled):
    """Once every term is off the teacher does not run, and nothing has to be prepared."""
    model, batch = distilled("distill.stop_epoch=1", *UNEVEN)
    model.epoch = 1
    student, teacher = (images_into(one.backbone, []) for one in (model.student, model.teachers[TEACHER]))
    before = everything_in(model.teachers[TEACHER])
    model(uneven(batch))
    assert [x.shape[2:] for x in student] == [[96, 128]] and teacher == []
    assert differing(everything_in(model.teachers[TEACHER]), before) == []
