"""What a loss may ask for beside its two tensors."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.ground_truth import BOXES, CLASSES, VALID
from ppkd.detectors.context import Context
from ppkd.errors import UserError
from tests.conftest import FAMILIES, training_batch


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_of_a_real_batch_are_pixels_of_the_network_input(family, recipe):
    batches = [training_batch(recipe(family), epoch) for epoch in range(3)]
    for batch in batches:
        check_boxes(batch)
    # PP-YOLOE's reader resizes every batch anew, and the boxes with it.
    assert len({batch["image"].shape[2] for batch in batches}) == (2 if family == "ppyoloe" else 1)


def check_boxes(batch):
    context = Context(batch)
    assert context.padded_size == tuple(batch["image"].shape[2:])
    boxes, valid = context.boxes.numpy(), context.boxes_valid.numpy()
    assert boxes.shape == (*valid.shape, 4) and valid.shape[0] == 2
    assert (boxes.dtype, valid.dtype) == (np.float32, np.float32)
    x1, y1, x2, y2 = np.moveaxis(boxes[valid > 0], -1, 0)
    height, width = context.padded_size
    assert (x1 < x2).all() and (y1 < y2).all()
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= width).all() and (y2 <= height).all()
    assert x2.max() > 2 and y2.max() > 2, "relative, not in pixels"
    assert not boxes[valid == 0].any()
    for mine, count, given in zip(boxes, valid.sum(axis=1).astype(int), batch["gt_bbox"]):
        given = given.numpy().reshape(-1, 4)
        np.testing.assert_allclose(mine[:count], given[given.any(axis=1)], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_size_is_that_before_padding(family, recipe):
    batch = training_batch(recipe(family))
    size = Context(batch).image_size
    assert size.shape == [2, 2] and size.dtype == paddle.float32
    np.testing.assert_array_equal(size.numpy(), batch["im_shape"].numpy())
    assert (size.numpy() <= np.array(batch["image"].shape[2:])).all()


def test_pick_gives_only_what_is_named_and_computes_only_that():
    context = Context({"image": paddle.zeros([1, 3, 32, 64])})
    assert context.pick(["padded_size"]) == {"padded_size": (32, 64)}
    assert context.pick([]) == {}


def test_a_batch_without_any_box_has_a_row_of_padding():
    empty = {BOXES: paddle.zeros([2, 0, 4]), VALID: paddle.zeros([2, 0]), CLASSES: paddle.zeros([2, 0], "int64")}
    found = Context(empty).pick(["boxes", "boxes_valid", "classes"])
    assert {name: value.shape for name, value in found.items()} == {
        "boxes": [2, 1, 4], "boxes_valid": [2, 1], "classes": [2, 1],
    }  # fmt: skip
    assert found["classes"].dtype == paddle.int64 and not any(bool(value.any()) for value in found.values())


def test_no_boxes_in_the_batch_is_a_users_error():
    context = Context({"image": paddle.zeros([1, 3, 32, 32])})
    for name in ("boxes", "boxes_valid", "classes"):
        with pytest.raises(UserError, match="data_fields has no gt_bbox"):
            context.pick([name])


def test_every_name_can_be_picked(recipe):
    context = Context(training_batch(recipe(FAMILIES[0])))
    from_batch = set(Context.NAMES) - set(Context.STATIC)
    assert set(context.pick(from_batch)) == from_batch
