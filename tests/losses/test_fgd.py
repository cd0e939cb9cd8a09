"""FGD: where boxes fall, batches without any, and how its parameters start."""

import numpy as np
import paddle
import pytest

from ppkd.losses import FGDLoss
from ppkd.losses.fgd_context import context_vector
from ppkd.losses.masks import box_masks

FRAME = paddle.to_tensor([[48.0, 56.0]])


def _masks(*boxes, valid=None, size=(6, 7), frame=FRAME):
    boxes = paddle.to_tensor([boxes], dtype="float32").reshape([1, len(boxes), 4])
    valid = paddle.ones([1, len(boxes)]) if valid is None else paddle.to_tensor([valid])
    return [mask[0].numpy() for mask in box_masks(boxes, valid, frame, size)]


def _loss(boxes=None, valid=None, batch=2, loss=None):
    """Terms, the student's gradient and the loss, for given boxes of every image."""
    student, teacher = paddle.randn([batch, 8, 6, 7]), paddle.randn([batch, 8, 6, 7])
    student.stop_gradient = False
    loss = loss or FGDLoss(8)
    boxes = paddle.zeros([batch, 0, 4]) if boxes is None else boxes
    valid = paddle.zeros(boxes.shape[:2]) if valid is None else valid
    terms = loss(student, teacher, boxes, valid, FRAME.tile([batch, 1]), (48, 56))
    sum(terms.values()).backward()
    return {name: float(term) for name, term in terms.items()}, student.grad, loss


def test_a_box_covers_both_its_end_cells():
    foreground, background = _masks([8, 16, 16, 32])  # 1..2 by 2..4 in cells
    expected = np.zeros((6, 7), np.float32)
    expected[2:5, 1:3] = 1 / 6
    np.testing.assert_allclose(foreground, expected)
    np.testing.assert_allclose(background, (expected == 0) / 36)


def test_the_smallest_of_overlapping_boxes_wins_whatever_the_order():
    large, small = [0, 0, 40, 40], [8, 8, 16, 16]
    foreground, _ = _masks(large, small)
    assert foreground[1, 1] == pytest.approx(1 / 4)
    assert foreground[0, 0] == pytest.approx(1 / 36)
    np.testing.assert_array_equal(foreground, _masks(small, large)[0])


def test_a_box_over_the_border_is_clipped_but_counted_whole():
    foreground, _ = _masks([-16, 40, 8, 64])  # -2..1 by 5..8 in cells
    expected = np.zeros((6, 7), np.float32)
    expected[5, 0:2] = 1 / 16
    np.testing.assert_allclose(foreground, expected)


def test_a_box_over_everything_leaves_no_background():
    foreground, background = _masks([0, 0, 56, 48])
    assert (foreground > 0).all()
    assert (background == 0).all()


def test_rows_that_are_no_boxes_change_nothing():
    box = [8, 16, 16, 32]
    with_padding = _masks(box, [0, 0, 0, 0], [30, 30, 20, 20], valid=[1.0, 0.0, 0.0])
    for mask, expected in zip(with_padding, _masks(box), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("rows", [0, 3])
def test_an_image_without_boxes_is_background_everywhere(rows):
    foreground, background = _masks(*[[0, 0, 0, 0]] * rows, valid=[0.0] * rows)
    assert (foreground == 0).all()
    np.testing.assert_allclose(background, 1 / 42)


@pytest.mark.parametrize("dtype", ["bool", "float32", "int64"])
def test_validity_may_be_of_any_type(dtype):
    boxes = paddle.to_tensor([[[8.0, 16, 16, 32], [0, 0, 0, 0]]])
    valid = paddle.to_tensor([[1, 0]]).astype(dtype)
    foreground, _ = box_masks(boxes, valid, FRAME, (6, 7))
    np.testing.assert_array_equal(foreground[0].numpy(), _masks([8, 16, 16, 32])[0])


@pytest.mark.parametrize("rows", [0, 3])
def test_no_boxes_in_the_batch_gives_a_finite_connected_loss(rows):
    terms, gradient, loss = _loss(paddle.zeros([2, rows, 4]))
    assert terms["fg"] == 0
    assert terms["bg"] > 0 and terms["attention"] > 0 and terms["relation"] > 0
    assert bool(paddle.isfinite(gradient).all()) and float(gradient.abs().max()) > 0
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_an_images_own_size_or_the_padded_one_is_the_frame_of_boxes():
    boxes, valid = paddle.to_tensor([[[0.0, 0, 16, 16]]]), paddle.ones([1, 1])
    student, teacher = paddle.randn([1, 8, 6, 7]), paddle.randn([1, 8, 6, 7])
    image_size = paddle.to_tensor([[24.0, 28.0]])
    fg = {}
    for frame in ("image", "padded"):
        loss = FGDLoss(8, box_frame=frame)
        fg[frame] = float(loss(student, teacher, boxes, valid, image_size, (48, 56))["fg"])
    # Half the size as frame is the whole size with boxes twice as large.
    twice = FGDLoss(8)(student, teacher, boxes * 2, valid, FRAME, (48, 56))["fg"]
    assert fg["image"] == pytest.approx(float(twice))
    assert fg["padded"] != pytest.approx(fg["image"], rel=1e-3)


def test_only_the_last_convolution_of_a_context_block_starts_at_zero():
    loss = FGDLoss(64)
    for block in (loss.channel_add_s, loss.channel_add_t):
        assert float(block[0].weight.abs().sum()) > 0
        assert float(block[3].weight.abs().sum()) == 0 and float(block[3].bias.abs().sum()) == 0
    for mask in (loss.conv_mask_s, loss.conv_mask_t):
        assert 0.5 < float(mask.weight.std()) / (2 / 64) ** 0.5 < 1.5
        assert mask.bias is None


def test_training_reaches_the_first_convolutions_after_one_step():
    loss = FGDLoss(8)
    _loss(loss=loss)
    for block in (loss.channel_add_s, loss.channel_add_t):
        assert float(block[3].weight.grad.abs().max()) > 0
        block[3].weight.set_value(block[3].weight - 1e-3 * block[3].weight.grad)
    loss.clear_gradients()
    _loss(loss=loss)
    for block in (loss.channel_add_s, loss.channel_add_t):
        assert float(block[0].weight.grad.abs().max()) > 0


def test_zero_context_never_trains_more_than_the_last_bias():
    loss = FGDLoss(8, zero_context=True, lambda_=1.0)
    for _ in range(3):
        _loss(loss=loss)
        reached = {name for name, x in loss.named_parameters() if float(x.grad.abs().max()) > 0}
        assert reached == {"channel_add_s.3.bias", "channel_add_t.3.bias"}
        for parameter in loss.parameters():
            parameter.set_value(parameter - 1e-3 * parameter.grad)
        loss.clear_gradients()


def test_relation_begins_as_a_plain_sum_of_squares():
    student, teacher = paddle.randn([2, 8, 6, 7]), paddle.randn([2, 8, 6, 7])
    none = paddle.zeros([2, 0, 4]), paddle.zeros([2, 0])
    terms = FGDLoss(8, lambda_=1.0)(student, teacher, *none, FRAME.tile([2, 1]), (48, 56))
    expected = float((student - teacher).square().sum()) / 2
    assert float(terms["relation"]) == pytest.approx(expected, rel=1e-5)


def test_parameters_have_the_documented_names():
    names = {name.split(".")[0] for name, _ in FGDLoss(8).named_parameters()}
    assert names == {"conv_mask_s", "conv_mask_t", "channel_add_s", "channel_add_t"}


def test_half_precision_parameters_are_computed_in_float32():
    loss = FGDLoss(8).to(dtype="bfloat16")
    student, teacher = (paddle.randn([2, 8, 6, 7]).astype("bfloat16") for _ in range(2))
    none = paddle.zeros([2, 0, 4]), paddle.zeros([2, 0])
    terms = loss(student, teacher, *none, FRAME.tile([2, 1]), (48, 56))
    assert all(term.dtype == paddle.float32 for term in terms.values())


def _learned():
    """A loss whose context blocks have learned: at first their last convolution is 0 and the scale of the norm 1."""
    loss = FGDLoss(8, alpha=1.0, beta=1.0, gamma=1.0, lambda_=1.0)
    for parameter in loss.parameters():
        parameter.set_value(paddle.randn(parameter.shape) / 2)
    return loss


@pytest.mark.parametrize("name", ["fg", "bg", "attention", "relation"])
def test_the_gradient_of_a_term_is_the_same_whatever_else_is_asked_for(name):
    loss = _learned()
    student, teacher, way = (paddle.randn([2, 8, 6, 7]) for _ in range(3))
    student.stop_gradient = False
    boxes, valid = paddle.to_tensor([[[4.0, 6, 30, 25]]]).tile([2, 1, 1]), paddle.ones([2, 1])

    def term(x):
        return loss(x, teacher, boxes, valid, FRAME.tile([2, 1]), (48, 56))[name]

    term(student).backward()
    expected = student.grad.numpy()
    same = {"rtol": 1e-4, "atol": 1e-6 * np.abs(expected).max()}
    (alone,) = paddle.grad(term(student), [student])
    np.testing.assert_allclose(alone.numpy(), expected, **same)
    for parameter in loss.parameters():  # as of a term with ``trained: false``
        parameter.stop_gradient = True
    student.clear_gradient(False)
    term(student).backward()
    np.testing.assert_allclose(student.grad.numpy(), expected, **same)
    if name == "relation":
        ahead, behind = (float(term((student + step * way).detach())) for step in (1e-2, -1e-2))
        assert float((student.grad * way).sum()) == pytest.approx((ahead - behind) / 2e-2, rel=2e-2, abs=0.1)


def test_scale_and_shift_of_a_context_block_are_those_of_its_norm():
    block = _learned().channel_add_s
    pooled = paddle.randn([2, 8])
    expected = block(pooled)
    np.testing.assert_allclose(context_vector(pooled, block).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
