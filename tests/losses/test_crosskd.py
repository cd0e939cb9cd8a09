"""CrossKD: its three distances against slow references, what they are divided by, and what they may not depend on."""

import numpy as np
import paddle
import pytest

from ppkd.losses import CrossKDBoxLoss, CrossKDClassLoss, CrossKDGIoULoss
from ppkd.losses.focal import map_divisor, soft_quality_focal

from . import slow

SIZES, BATCH = [(2, 3), (1, 2)], 2
CLASSES, ANCHORS, BINS = 3, 2, 4


def _maps(channels, seed, batch=BATCH, scale=2.0):
    random = np.random.default_rng(seed)
    return [scale * random.standard_normal((batch, channels, *size)) for size in SIZES]


def _distances(seed, batch=BATCH):
    """Of boxes, some of which lie to one side of their point."""
    random = np.random.default_rng(seed)
    return [random.uniform(0.5, 4.0, (batch, 4 * ANCHORS, *size)) - (random.random() < 0.5) * 0.4 for size in SIZES]


# Each loss, its student's and its teacher's maps.
CASES = {
    "cls": (CrossKDClassLoss, _maps(ANCHORS * CLASSES, 0), _maps(ANCHORS * CLASSES, 1)),
    "cls a cell": (lambda: CrossKDClassLoss(per="cell"), _maps(ANCHORS * CLASSES, 0), _maps(ANCHORS * CLASSES, 1)),
    "box": (CrossKDBoxLoss, _maps(4 * BINS, 2), _maps(4 * BINS, 3)),
    "giou": (CrossKDGIoULoss, _distances(4), _distances(5)),
}
every_case = pytest.mark.parametrize("case", CASES)


# --- slow references ---------------------------------------------------------------------------


def _slow_cls(student, teacher, beta):
    total = 0.0
    for a, n, i, j in slow.cells(teacher):
        for channel in range(ANCHORS * CLASSES):
            p, q = (slow.sigmoid(x[a][n, channel, i, j]) for x in (student, teacher))
            total += abs(p - q) ** beta * slow.binary_cross_entropy(p, q)
    return total


def _slow_box(student, teacher, temp):
    places = list(slow.cells(teacher))
    total = 0.0
    for a, n, i, j in places:
        for edge in range(4):
            part = slice(edge * BINS, (edge + 1) * BINS)
            p, q = (slow.softmax(x[a][n, part, i, j] / temp) for x in (teacher, student))
            total += temp**2 * (p * np.log(p / q)).sum() / BINS
    return total / (4 * len(places))


def _slow_giou(student, teacher):
    places = list(slow.cells(teacher))
    total = 0.0
    for a, n, i, j in places:
        for anchor in range(ANCHORS):
            part = slice(4 * anchor, 4 * anchor + 4)
            total += 1 - slow.giou(*(slow.corners(x[a][n, part, i, j]) for x in (student, teacher)))
    return total / (ANCHORS * len(places))


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("per", ["object", "cell", "image"])
def test_cls_follows_its_formula(beta, per):
    _, student, teacher = CASES["cls"]
    divisor = {"object": slow.seen(teacher), "cell": BATCH * (6 + 2), "image": BATCH}[per]
    loss, fixed = CrossKDClassLoss(beta, per), slow.tensors(teacher)
    slow.agree(lambda x: loss(x, fixed), lambda x: _slow_cls(x, teacher, beta) / divisor, student)


@pytest.mark.parametrize("temp", [1.0, 3.0])
def test_box_follows_its_formula(temp):
    _, student, teacher = CASES["box"]
    loss, fixed = CrossKDBoxLoss(temp), slow.tensors(teacher)
    slow.agree(lambda x: loss(x, fixed), lambda x: _slow_box(x, teacher, temp), student)


def test_giou_follows_its_formula():
    _, student, teacher = CASES["giou"]
    loss, fixed = CrossKDGIoULoss(), slow.tensors(teacher)
    slow.agree(lambda x: loss(x, fixed), lambda x: _slow_giou(x, teacher), student)


def test_the_default_is_the_papers_exponent():
    _, student, teacher = CASES["cls"]
    sides = slow.tensors(student), slow.tensors(teacher)
    assert float(CrossKDClassLoss()(*sides)) == float(CrossKDClassLoss(beta=1.0, per="object")(*sides))


# --- what they are divided by ------------------------------------------------------------------


def test_a_teacher_that_sees_nothing_divides_by_the_images():
    empty = [paddle.full([3, 4, 5, 5], -20.0)]
    assert float(map_divisor(empty, "object")) == 3


def test_a_cell_counts_by_its_highest_score_whatever_the_others_are():
    levels = [paddle.full([1, 4, 6, 5], -20.0), paddle.full([1, 4, 3, 2], -20.0)]
    levels[0][0, 1, 2, :] = 20.0
    levels[0][0, 3, 2, :] = 20.0
    levels[1][0, 2, 1, 0] = 0.0
    assert float(map_divisor(levels, "object")) == pytest.approx(5.5, rel=1e-5)


def test_a_map_full_of_background_does_not_thin_the_loss():
    """The same objects on a map of nine times the cells: the mean over cells falls to a ninth, the default does not."""
    small = [-12 + 0 * x for x in _maps(CLASSES, 0)[:1]]
    small[0][:, 1] = 2.0
    large = [-12 + np.zeros((BATCH, CLASSES, 6, 9))]
    large[0][:, :, :2, :3] = small[0]

    def loss(teacher, per):
        student = [np.full_like(teacher[0], -12.0)]
        return float(CrossKDClassLoss(per=per)(slow.tensors(student), slow.tensors(teacher)))

    assert loss(large, "object") == pytest.approx(loss(small, "object"), rel=1e-3)
    assert loss(large, "cell") == pytest.approx(loss(small, "cell") / 9, rel=1e-3)


# --- what holds for all of them ----------------------------------------------------------------


@every_case
def test_equal_predictions_are_zero_and_have_no_gradient(case):
    build, student, _ = CASES[case]
    inputs = slow.tensors(student, trained=True)
    value = build()(inputs, slow.tensors(student))
    value.backward()
    assert abs(float(value)) < 1e-9
    assert max(float(x.grad.abs().max()) for x in inputs) < 1e-9


@every_case
def test_two_copies_give_the_loss_of_one(case):
    build, student, teacher = CASES[case]
    one, two = (
        [slow.tensors([np.concatenate([x[:1]] * n) for x in side]) for side in (student, teacher)] for n in (1, 2)
    )
    assert float(build()(*two)) == pytest.approx(float(build()(*one)), rel=1e-12)


@every_case
def test_the_order_of_images_does_not_matter(case):
    build, student, teacher = CASES[case]
    sides = [slow.tensors(side) for side in (student, teacher)]
    turned = [slow.tensors([x[::-1] for x in side]) for side in (student, teacher)]
    assert float(build()(*turned)) == pytest.approx(float(build()(*sides)), rel=1e-12)


@every_case
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_within_a_thousandth(case, dtype):
    build, student, teacher = CASES[case]
    half = [[x.astype(dtype) for x in slow.tensors(side, dtype="float32")] for side in (student, teacher)]
    exact = build()(*([x.astype("float32") for x in side] for side in half))
    value = build()(*half)
    assert value.dtype == paddle.float32
    assert float(value) == pytest.approx(float(exact), rel=1e-3)


@every_case
def test_the_teacher_gets_no_gradient(case):
    build, student, teacher = CASES[case]
    ours, theirs = (slow.tensors(side, trained=True) for side in (student, teacher))
    build()(ours, theirs).backward()
    assert all(x.grad is None for x in theirs)
    assert all(float(x.grad.abs().max()) > 0 for x in ours)


@every_case
def test_logits_of_any_size_are_finite(case):
    build, student, teacher = CASES[case]
    ours, theirs = [slow.tensors([1e4 * x for x in side], True, "float32") for side in (student, teacher)]
    value = build()(ours, theirs)
    value.backward()
    assert np.isfinite(float(value))
    assert all(bool(paddle.isfinite(x.grad).all()) for x in ours)


@every_case
def test_unequal_levels_are_refused(case):
    build, student, teacher = CASES[case]
    ours, theirs = slow.tensors(student), slow.tensors(teacher)
    with pytest.raises(ValueError, match=r"crosskd_.*: 2 levels of the student and 1 of the teacher"):
        build()(ours, theirs[:1])
    with pytest.raises(ValueError, match=r"crosskd_.*: student .* and teacher .* must have the same shape"):
        build()(ours, theirs[::-1])


def test_boxes_that_are_none_stay_finite():
    """A student whose edges have passed each other everywhere overlaps nothing."""
    _, student, teacher = CASES["giou"]
    ours = slow.tensors([-x for x in student], trained=True)
    value = CrossKDGIoULoss()(ours, slow.tensors(teacher))
    value.backward()
    assert 1 <= float(value) <= 2
    assert all(bool(paddle.isfinite(x.grad).all()) for x in ours)


def test_the_quality_focal_loss_is_a_sum():
    logits = paddle.to_tensor([0.0, 0.0]), paddle.to_tensor([20.0, 20.0])
    assert float(soft_quality_focal(*logits, beta=1.0)) == pytest.approx(2 * 0.5 * np.log(2), rel=1e-5)
