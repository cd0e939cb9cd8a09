"""What holds for every loss, whatever it computes; what one of several tensors gets is cut out of one map."""

import inspect

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.base import core
from paddle.base.framework import _dygraph_tracer

from ppkd.detectors.context import Assignment
from ppkd.losses import (
    LOSSES,
    BCKDClassLoss,
    BCKDLoss,
    CosineLoss,
    CrossKDBoxLoss,
    CrossKDClassLoss,
    CrossKDGIoULoss,
    CWDLoss,
    DenseDKDLoss,
    DETRMatchLoss,
    DISTLoss,
    DKDLoss,
    FGDLoss,
    FoundBoxesLoss,
    KLLoss,
    L2Loss,
    LDLoss,
    MGDLoss,
    MimicLoss,
    PartialL2Loss,
    PKDLoss,
    PPYOLOELoss,
    ScoreL2Loss,
    SharedQueriesLoss,
    YOLOv3Loss,
    kernels,
)
from ppkd.losses.common import up
from ppkd.losses.cwd import cwd
from ppkd.losses.kl import kl
from ppkd.losses.l2 import l2, mimic
from ppkd.losses.normalise import batch_standardise, pkd_standardise
from ppkd.losses.pkd import pkd

CHANNELS, HEIGHT, WIDTH = 8, 6, 7
MAP = (2, CHANNELS, HEIGHT, WIDTH)
ROWS = (6, CHANNELS)
CLASSES, BINS = 3, 3
HEAD = (2, CLASSES + 4 * BINS, HEIGHT, WIDTH)
TARGET = [4.0, 6.0, 30.0, 25.0]
ANCHORS = 2
ANCHOR_CLASSES = (2, ANCHORS * CLASSES, HEIGHT, WIDTH)
ANCHOR_HEAD = (2, ANCHORS * (CLASSES + 4), HEIGHT, WIDTH)

# How each is built, and the shape of what it compares.
BUILD = {
    "fgd": (lambda: FGDLoss(CHANNELS), MAP),
    "fgd padded": (lambda: FGDLoss(CHANNELS, box_frame="padded"), MAP),
    "cwd": (CWDLoss, MAP),
    "cwd spatial": (lambda: CWDLoss(tau=2.0, norm="spatial"), MAP),
    "cwd mse": (lambda: CWDLoss(divergence="mse"), MAP),
    "cosine": (CosineLoss, MAP),
    "pkd": (PKDLoss, MAP),
    "mgd": (lambda: MGDLoss(CHANNELS, alpha=1.0), MAP),
    "mgd channel": (lambda: MGDLoss(CHANNELS, alpha=1.0, mask="channel"), MAP),
    "kl": (lambda: KLLoss(tau=4.0), ROWS),
    "kl map": (lambda: KLLoss(reduction="mean"), MAP),
    "l2": (L2Loss, MAP),
    "l2 dist": (lambda: L2Loss(normalize=False, dist=True), MAP),
    "mimic": (MimicLoss, MAP),
    "mimic l1": (lambda: MimicLoss("l1"), MAP),
    "partial_l2": (lambda: PartialL2Loss({8: 0.5}), MAP),
    "detr_match": (DETRMatchLoss, (2, CLASSES + 4, HEIGHT, WIDTH)),
    "detr_match of few": (lambda: DETRMatchLoss(top=5, weight_giou=0.0), (2, CLASSES + 4, HEIGHT, WIDTH)),
    "detr_match kl": (lambda: DETRMatchLoss("kl", top=None), (2, CLASSES + 4, HEIGHT, WIDTH)),
    "shared_queries": (SharedQueriesLoss, (2, CLASSES + 4, HEIGHT, WIDTH)),
    "shared_queries qfl": (lambda: SharedQueriesLoss(cls="qfl"), (2, CLASSES + 4, HEIGHT, WIDTH)),
    "found_boxes": (FoundBoxesLoss, (2, CLASSES + 4, HEIGHT, WIDTH)),
    "dist": (DISTLoss, ROWS),
    "dist map": (DISTLoss, MAP),
    "dkd": (lambda: DKDLoss(tau=4.0), ROWS),
    "dkd dense": (lambda: DenseDKDLoss(tau=4.0), ANCHOR_CLASSES),
    "crosskd_cls": (CrossKDClassLoss, ANCHOR_CLASSES),
    "crosskd_cls a cell": (lambda: CrossKDClassLoss(beta=2.0, per="cell"), ANCHOR_CLASSES),
    "crosskd_box": (CrossKDBoxLoss, MAP),
    "crosskd_giou": (CrossKDGIoULoss, MAP),
    "bckd": (BCKDLoss, ANCHOR_HEAD),
    "bckd an image": (lambda: BCKDLoss(per="image"), ANCHOR_HEAD),
    "bckd_cls": (BCKDClassLoss, ANCHOR_CLASSES),
    "yolov3": (YOLOv3Loss, (2, 2 * (5 + CLASSES), HEIGHT, WIDTH)),
    "score_l2": (lambda: ScoreL2Loss(CHANNELS, CHANNELS), (2, CHANNELS + CLASSES, HEIGHT, WIDTH)),
    "ld": (LDLoss, HEAD),
    "ppyoloe": (lambda: PPYOLOELoss(kd_weight=20000), HEAD),
    "ppyoloe as paddledet": (lambda: PPYOLOELoss(kd_weight=20000, kd_per_class=False), HEAD),
}
# Their way of summing grows with the batch; each has another option as its default.
GROWS_WITH_BATCH = ("l2 dist",)
# What they make of the student's map is not the student's map.
GENERATES = ("mgd", "mgd channel", "score_l2")
# Cross-entropies without the teacher's entropy, hard targets, and a GIoU whose kink is where both boxes agree; of
# random distances many are no box at all, and there two that are equal do not overlap.
NOT_ZERO_AT_EQUALITY = (
    "yolov3", "ppyoloe", "ppyoloe as paddledet", "crosskd_giou", "detr_match", "detr_match kl", "shared_queries",
    "shared_queries qfl", "found_boxes",
)  # fmt: skip
# Those that read no value back from the device and pick no rows by a mask.
NO_SYNC = (
    "dkd dense", "crosskd_cls", "crosskd_cls a cell", "crosskd_box", "crosskd_giou", "bckd", "bckd_cls", "ld",
    "partial_l2", "score_l2", "shared_queries",
)  # fmt: skip

every_loss = pytest.mark.parametrize("name", BUILD)


def _on_a_gpu(monkeypatch):
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)


@pytest.fixture(params=["cpu", "gpu"])
def either_way(request, monkeypatch):
    """A test that holds whichever way a loss takes, the CPU's or that of a device that wants few operations."""
    if request.param == "gpu":
        _on_a_gpu(monkeypatch)


def _anchor_fields(x):
    """Box, objectness and classes of two anchors."""
    return x[:, :8], x[:, 8:10], x[:, 10:]


def _head_levels(x):
    """Classes and edges of two levels: the upper rows of the map, and the lower ones."""
    upper, lower = x[:, :, :4], x[:, :, 4:]
    return tuple([level[:, part] for level in (upper, lower)] for part in (slice(CLASSES), slice(CLASSES, None)))


def _levels(x):
    """Two levels of one source."""
    return [x[:, :, :4], x[:, :, 4:]]


def _anchor_head_levels(x):
    """Classes and boxes of two anchors a cell, of two levels."""
    return _levels(x[:, : ANCHORS * CLASSES]), _levels(x[:, ANCHORS * CLASSES :])


def _sets(x):
    """Classes and boxes of the predictions of two layers."""
    rows = [level.flatten(2).transpose([0, 2, 1]) for level in (x[:, :, :3], x[:, :, 3:])]
    return [x[..., :CLASSES] for x in rows], [F.sigmoid(up(x[..., CLASSES:])) for x in rows]


_INPUTS = {
    **dict.fromkeys((DETRMatchLoss, SharedQueriesLoss), _sets),
    YOLOv3Loss: _anchor_fields,
    ScoreL2Loss: lambda x: (x[:, :CHANNELS], x[:, CHANNELS:]),
    LDLoss: _head_levels,
    PPYOLOELoss: _head_levels,
    BCKDLoss: _anchor_head_levels,
    **dict.fromkeys((DenseDKDLoss, CrossKDClassLoss, CrossKDBoxLoss, CrossKDGIoULoss, BCKDClassLoss), _levels),
}


def _found(x):
    """A teacher's boxes (N, 3, 6), one a class, near the one of `_assignment`; the map says where and how sure."""
    means = up(x).mean(axis=[2, 3])[:, :6].unsqueeze(1)
    kinds = paddle.arange(CLASSES).astype(means.dtype).reshape([1, CLASSES, 1]).tile([x.shape[0], 1, 1])
    corners = paddle.to_tensor(TARGET, dtype=means.dtype) + means[:, :, 2:].tile([1, CLASSES, 1])
    return paddle.concat([kinds, F.sigmoid(means[:, :, :1] + kinds), corners], axis=2)


def _call(loss, student, teacher, **context):
    if isinstance(loss, FoundBoxesLoss):
        classes, edges = _head_levels(student)
        return loss((classes, [F.softplus(up(edge)) for edge in edges]), [_found(teacher)] * 2, **context)
    inputs = _INPUTS.get(type(loss), lambda x: x)
    return loss(inputs(student), inputs(teacher), **context)


def _assignment(batch):
    """Every third of the 42 positions has a target, of soft scores that add up to more than 1."""
    place = np.arange(HEIGHT * WIDTH)
    labels = np.where(place % 3 == 0, place % CLASSES, CLASSES)
    scores = np.eye(CLASSES + 1, dtype="float32")[labels][:, :CLASSES] * (0.2 + place[:, None] % 5 / 7)
    boxes = np.tile(np.array(TARGET, "float32"), (HEIGHT * WIDTH, 1))
    labels, boxes, scores = (paddle.to_tensor(np.stack([x] * batch)) for x in (labels, boxes, scores.astype("float32")))
    return Assignment(labels, boxes, scores, background=CLASSES)


def _context(loss, batch, boxes=2):
    one = paddle.to_tensor([[[4.0, 6.0, 30.0, 25.0], [10.0, 8.0, 50.0, 44.0]]])[:, :boxes]
    known = {
        "boxes": one.tile([batch, 1, 1]),
        "boxes_valid": paddle.ones([batch, boxes]),
        "image_size": paddle.to_tensor([[48.0, 56.0]]).tile([batch, 1]),
        "padded_size": (48, 56),
        "labels": paddle.arange(batch) % CHANNELS,
        "classes": paddle.to_tensor([[1, 2]])[:, :boxes].tile([batch, 1]),
        "num_classes": CLASSES,
        "strides": (8, 16),
        "cell_offset": 0.5,
        "first_bin": 0,
        "assignment": _assignment(batch),
    }
    wanted = inspect.signature(loss.forward).parameters
    return {name: value for name, value in known.items() if name in wanted}


def _run(loss, student, teacher, **context):
    """Value as a number, gradient of the student as an array."""
    student = student.detach()
    student.stop_gradient = False
    context = {**_context(loss, student.shape[0]), **context}
    result = _call(loss, student, teacher, **context)
    terms = result.values() if isinstance(result, dict) else [result]
    assert all(term.shape == [] for term in terms)
    total = sum(terms)
    total.backward()
    assert student.grad is not None, "the loss is not connected to the student"
    return float(total), student.grad.astype("float32").numpy()


def _built(name):
    build, shape = BUILD[name]
    return build(), paddle.randn(shape), paddle.randn(shape)


def _repeatable(loss):
    """Make the random mask of MGD the same for every image of every call."""
    if isinstance(loss, MGDLoss):
        shape = [1, 1, HEIGHT, WIDTH] if loss.mask == "spatial" else [1, CHANNELS, 1, 1]
        keep = (paddle.rand(shape) > 0.5).astype("float32")
        return {"mask_keep": keep}
    return {}


def test_the_table_of_losses_is_covered():
    tested = {type(build()) for build, _ in BUILD.values()}
    assert set(LOSSES.values()) <= tested


@pytest.mark.parametrize(
    ("function", "layer"),
    [(cwd, CWDLoss), (kl, KLLoss), (l2, L2Loss), (mimic, MimicLoss), (pkd, PKDLoss)],
)
def test_a_function_and_its_layer_have_the_same_options(function, layer):
    of_function = list(inspect.signature(function).parameters.values())[2:]
    of_layer = list(inspect.signature(layer).parameters.values())
    assert [(x.name, x.default) for x in of_function] == [(x.name, x.default) for x in of_layer]


@pytest.mark.parametrize("name", [name for name in BUILD if name not in GENERATES + NOT_ZERO_AT_EQUALITY])
@pytest.mark.usefixtures("either_way")
def test_teacher_equal_to_student_gives_zero_and_no_gradient(name):
    loss, student, teacher = _built(name)
    _, usual = _run(loss, student, teacher)
    value, gradient = _run(loss, student, student.clone())
    # DIST is one minus a cosine with 1e-8 in its denominator, and cosine one minus one: zero but for that.
    limit = 1e-5 if name.startswith(("dist", "cosine")) else 0.0
    assert abs(value) <= limit
    assert np.abs(gradient).max() <= limit * np.abs(usual).max()


@every_loss
def test_different_tensors_give_a_positive_value_and_a_gradient(name):
    value, gradient = _run(*_built(name))
    assert value > 1e-8
    assert np.abs(gradient).max() > 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name in BUILD if name not in GROWS_WITH_BATCH])
@pytest.mark.usefixtures("either_way")
def test_a_batch_of_two_copies_gives_the_loss_of_one(name):
    loss, student, teacher = _built(name)
    if student.ndim == 4:  # one image; of rows of logits, all of them
        student, teacher = student[:1], teacher[:1]
    fixed = _repeatable(loss)
    once, gradient_once = _run(loss, student, teacher, **fixed)
    if isinstance(loss, DKDLoss):
        fixed = {"labels": (paddle.arange(len(student)) % CHANNELS).tile([2])}
    pair = [paddle.concat([x, x]) for x in (student, teacher)]
    twice, gradient_twice = _run(loss, *pair, **fixed)
    assert twice == pytest.approx(once, rel=1e-5)
    halves = np.split(gradient_twice, 2)
    limit = 1e-5 * np.abs(gradient_once).max()
    np.testing.assert_allclose(halves[0], halves[1], rtol=0, atol=limit)
    np.testing.assert_allclose(2 * halves[0], gradient_once, rtol=0, atol=limit)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.usefixtures("either_way")
def test_half_precision_inputs_are_computed_in_float32(name, dtype):
    loss, student, teacher = _built(name)
    fixed = _repeatable(loss)
    half = student.astype(dtype), teacher.astype(dtype)
    value, gradient = _run(loss, *half, **fixed)
    expected, expected_gradient = _run(loss, *(x.astype("float32") for x in half), **fixed)
    assert value == pytest.approx(expected, rel=1e-6)
    # The gradient arrives in the type of the input, rounded.
    rounding = 1e-3 if dtype == "float16" else 8e-3
    limit = rounding * np.abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=limit)


def _levels_of_products(monkeypatch, function, *args, **kwargs):
    """The mixed-precision levels that ``function``'s matrix products, convolutions and norms are run at.

    On CPU ``paddle.amp.auto_cast`` has no effect, so the level is set by hand and only looked at.
    """
    tracer, seen = _dygraph_tracer(), set()

    def recording(operation):
        def wrapped(*args, **kwargs):
            seen.add(tracer._amp_level)
            return operation(*args, **kwargs)

        return wrapped

    for module, name in ((paddle, "bmm"), (paddle, "matmul"), (F, "conv2d"), (F, "batch_norm")):
        monkeypatch.setattr(module, name, recording(getattr(module, name)))
    before = tracer._amp_level, tracer._amp_dtype
    tracer._amp_level, tracer._amp_dtype = core.AmpLevel.O1, "bfloat16"
    try:
        function(*args, **kwargs)
    finally:
        tracer._amp_level, tracer._amp_dtype = before
    return seen


@pytest.mark.parametrize("name", ["fgd", "pkd", "mgd"])
@pytest.mark.usefixtures("either_way")
def test_mixed_precision_is_off_where_it_would_cast_down(name, monkeypatch):
    loss, student, teacher = _built(name)
    context = _context(loss, len(student))
    levels = _levels_of_products(monkeypatch, _call, loss, student, teacher, **context)
    assert levels == {core.AmpLevel.O0}


@pytest.mark.parametrize("standardise", [batch_standardise, pkd_standardise])
def test_mixed_precision_is_off_in_a_standardising_connector(standardise, monkeypatch):
    x = paddle.randn(MAP)
    assert _levels_of_products(monkeypatch, standardise, x) == {core.AmpLevel.O0}


@every_loss
@pytest.mark.usefixtures("either_way")
def test_float64_stays_float64(name):
    if name in GENERATES or name.startswith("fgd"):
        pytest.skip("its parameters are float32")
    loss, student, teacher = _built(name)
    pair = student.astype("float64"), teacher.astype("float64")
    result = _call(loss, *pair, **_context(loss, len(student)))
    terms = result.values() if isinstance(result, dict) else [result]
    assert all(term.dtype == paddle.float64 for term in terms)


@every_loss
@pytest.mark.usefixtures("either_way")
def test_the_teacher_receives_no_gradient(name):
    loss, student, teacher = _built(name)
    teacher.stop_gradient = False
    _run(loss, student, teacher)
    assert teacher.grad is None


def _refuse(*_, **__):
    raise AssertionError("the loss waits for the device")


@pytest.mark.parametrize("name", NO_SYNC)
def test_nothing_waits_for_the_device(name, monkeypatch):
    loss, student, teacher = _built(name)
    context = _context(loss, len(student))
    read = paddle.Tensor.__getitem__

    def no_mask(x, index):
        parts = index if isinstance(index, tuple) else (index,)
        assert not any(isinstance(part, paddle.Tensor) for part in parts), "shapes would depend on the data"
        return read(x, index)

    for method in ("numpy", "item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(paddle.Tensor, method, _refuse)
    _on_a_gpu(monkeypatch)
    monkeypatch.setattr(paddle.Tensor, "__getitem__", no_mask)
    for function in ("nonzero", "masked_select"):
        monkeypatch.setattr(paddle, function, _refuse)
        monkeypatch.setattr(paddle.Tensor, function, _refuse)
    _call(loss, student, teacher, **context)


@every_loss
@pytest.mark.usefixtures("either_way")
def test_every_parameter_of_a_loss_is_reached(name):
    loss, student, teacher = _built(name)
    _run(loss, student, teacher)
    for own, parameter in loss.named_parameters():
        assert parameter.grad is not None, own
        assert bool(paddle.isfinite(parameter.grad).all()), own


@every_loss
@pytest.mark.usefixtures("either_way")
def test_a_dead_map_gives_a_finite_gradient(name):
    loss, _, teacher = _built(name)
    value, gradient = _run(loss, paddle.zeros_like(teacher), teacher)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# score_l2 does not compare classes, and found_boxes no maps.
@pytest.mark.parametrize("name", [name for name in BUILD if name not in ("score_l2", "found_boxes")])
def test_unequal_shapes_are_refused_with_both(name):
    loss, student, teacher = _built(name)
    with pytest.raises(ValueError, match=r"student \[.*\] and teacher \[.*\] must have the same shape") as refused:
        _call(loss, student, teacher[:, 1:], **_context(loss, len(student)))
    if type(loss) not in _INPUTS:
        assert str(list(student.shape)) in str(refused.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: FGDLoss(8, box_frame="whole"),
        lambda: FGDLoss(1),
        lambda: CWDLoss(norm="none"),
        lambda: CWDLoss(divergence="l2"),
        lambda: MGDLoss(8, mask="none"),
        lambda: MGDLoss(8, lambda_=1.5),
        lambda: KLLoss(reduction="none"),
        lambda: DKDLoss(reduction="mean"),
        lambda: MimicLoss("l2"),
        lambda: CrossKDClassLoss(beta=0.5),
        lambda: CrossKDClassLoss(per="level"),
        lambda: BCKDLoss(per="level"),
        lambda: DETRMatchLoss("mse"),
        lambda: DETRMatchLoss(top=0),
        lambda: BCKDClassLoss(per="level"),
    ],
)
def test_a_wrong_option_is_refused_when_built(build):
    with pytest.raises(ValueError, match="expected"):
        build()
