"""BCKD: both parts against slow references, what weighs them, and what they may not depend on."""

import numpy as np
import paddle
import pytest

from ppkd.losses import BCKDClassLoss, BCKDLoss

from . import slow

SIZES, BATCH = [(2, 3), (1, 2)], 2
CLASSES, ANCHORS = 3, 2


def _side(seed, anchors=ANCHORS, batch=BATCH):
    """Class logits and boxes of a head, all levels of one after those of the other."""
    random = np.random.default_rng(seed)
    logits = [2 * random.standard_normal((batch, anchors * CLASSES, *size)) for size in SIZES]
    # Some lie to one side of their point, and some pairs do not meet.
    boxes = [random.uniform(0.5, 4.0, (batch, anchors * 4, *size)) for size in SIZES]
    for x in boxes:
        x[:, ::4] -= 0.8
        x[:, 2::4] += 0.8
    boxes[0][0, :4, 0, 0] = [-2.0, 1.0, 3.0, 1.0] if seed % 2 else [1.0, 1.0, 0.5, 1.0]
    return logits + boxes


def _loss(loss, student, teacher, classes=CLASSES, **tensors):
    """The parts of sides given as arrays."""
    ours, theirs = (slow.tensors(side, **tensors) for side in (student, teacher))
    return loss((ours[:2], ours[2:]), (theirs[:2], theirs[2:]), classes)


def _numbers(parts):
    return {name: float(part) for name, part in parts.items()}


# --- slow references ---------------------------------------------------------------------------


def _slow_weight(student, teacher, a, n, i, j, anchor):
    part = slice(anchor * CLASSES, (anchor + 1) * CLASSES)
    p, q = (slow.sigmoid(x[a][n, part, i, j]) for x in (student, teacher))
    return abs(q - p), p, q


def _slow_cls(student, teacher, anchors):
    total = 0.0
    for a, n, i, j in slow.cells(teacher[:2]):
        for anchor in range(anchors):
            weight, p, q = _slow_weight(student, teacher, a, n, i, j, anchor)
            total += (weight * slow.binary_cross_entropy(p, q)).sum()
    return total


def _slow_iou(student, teacher, anchors, logits):
    """`logits` are those of the student that weigh."""
    total = 0.0
    for a, n, i, j in slow.cells(teacher[:2]):
        for anchor in range(anchors):
            weight, *_ = _slow_weight(logits, teacher, a, n, i, j, anchor)
            part = slice(4 * anchor, 4 * anchor + 4)
            boxes = (slow.corners(x[2 + a][n, part, i, j]) for x in (student, teacher))
            total += weight.max() * (1 - slow.iou(*boxes))
    return total


def _divisor(per, teacher):
    return {"object": slow.seen(teacher[:2]), "cell": BATCH * (6 + 2), "image": BATCH}[per]


@pytest.mark.parametrize("anchors", [1, ANCHORS])
@pytest.mark.parametrize("per", ["object", "cell", "image"])
def test_cls_follows_its_formula(anchors, per):
    student, teacher = _side(0, anchors), _side(1, anchors)
    boxes, fixed, loss = slow.tensors(student[2:]), slow.tensors(teacher), BCKDLoss(3.0, 0.0, per)

    def ours(logits):
        return loss((logits, boxes), (fixed[:2], fixed[2:]), CLASSES)["cls"]

    slow.agree(ours, lambda x: 3 * _slow_cls(x, teacher, anchors) / _divisor(per, teacher), student[:2])


@pytest.mark.parametrize("anchors", [1, ANCHORS])
@pytest.mark.parametrize("per", ["object", "cell", "image"])
def test_iou_follows_its_formula_and_weighs_without_gradient(anchors, per):
    student, teacher = _side(0, anchors), _side(1, anchors)
    fixed, loss = slow.tensors(teacher), BCKDLoss(0.0, 5.0, per)
    logits = slow.tensors(student[:2], trained=True)

    def ours(boxes):
        return loss((logits, boxes), (fixed[:2], fixed[2:]), CLASSES)["iou"]

    def reference(boxes):
        return 5 * _slow_iou([None, None, *boxes], teacher, anchors, student) / _divisor(per, teacher)

    slow.agree(ours, reference, student[2:])
    assert all(x.grad is None or float(x.grad.abs().max()) == 0 for x in logits)


def test_the_defaults_are_the_papers_weights():
    student, teacher = _side(0), _side(1)
    expected = _loss(BCKDLoss(1.0, 1.0, "object"), student, teacher)
    parts = _numbers(_loss(BCKDLoss(), student, teacher))
    assert parts == pytest.approx({"cls": float(expected["cls"]), "iou": 4 * float(expected["iou"])}, rel=1e-12)


@pytest.mark.parametrize("per", ["object", "cell", "image"])
def test_classes_alone_are_the_class_part(per):
    student, teacher = _side(0), _side(1)
    alone = BCKDClassLoss(per)(slow.tensors(student[:2]), slow.tensors(teacher[:2]))
    assert float(alone) == float(_loss(BCKDLoss(1.0, 0.0, per), student, teacher)["cls"])


@pytest.mark.parametrize(("weights", "names"), [((1.0, 0.0), ["cls"]), ((0.0, 4.0), ["iou"])])
def test_a_part_of_weight_zero_is_left_out(weights, names):
    assert list(_loss(BCKDLoss(*weights), _side(0), _side(1))) == names


# --- what they see -----------------------------------------------------------------------------


def test_a_constant_added_to_all_logits_is_seen():
    """The inconsistency that gave the paper its name: a softmax would not see it."""
    teacher = _side(1)
    student = [x + 1.0 for x in teacher[:2]] + teacher[2:]
    assert float(_loss(BCKDLoss(), student, teacher)["cls"]) > 0.01


def test_boxes_count_only_where_scores_differ():
    teacher = _side(1)
    student = [x.copy() for x in teacher[:2]] + _side(0)[2:]
    assert float(_loss(BCKDLoss(), student, teacher)["iou"]) == 0
    student[0][0, 4, 1, 2] += 1.0  # of the second anchor in one cell
    before = float(_loss(BCKDLoss(), student, teacher)["iou"])
    assert before > 0
    for anchor, changes in ((0, False), (1, True)):
        moved = [x.copy() for x in student]
        moved[2][0, 4 * anchor, 1, 2] += 5.0
        assert (float(_loss(BCKDLoss(), moved, teacher)["iou"]) != before) is changes


def test_equal_heads_are_zero_and_have_no_gradient():
    student = slow.tensors(_side(0), trained=True)
    teacher = [x.detach() for x in student]
    parts = BCKDLoss()((student[:2], student[2:]), (teacher[:2], teacher[2:]), CLASSES)
    assert _numbers(parts) == {"cls": 0, "iou": 0}
    sum(parts.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_equal_boxes_are_zero_whatever_the_scores():
    student, teacher = _side(0)[:2] + _side(1)[2:], _side(1)
    assert float(_loss(BCKDLoss(), student, teacher)["iou"]) == pytest.approx(0, abs=1e-9)


def test_two_copies_give_the_loss_of_one():
    sides = [_side(seed, batch=1) for seed in (0, 1)]
    twice = [[np.concatenate([x, x]) for x in side] for side in sides]
    assert _numbers(_loss(BCKDLoss(), *twice)) == pytest.approx(_numbers(_loss(BCKDLoss(), *sides)), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_within_a_thousandth(dtype):
    half = [[x.astype(dtype) for x in slow.tensors(_side(seed), dtype="float32")] for seed in (0, 1)]
    whole = [[x.astype("float32") for x in side] for side in half]
    exact, parts = (BCKDLoss()(*((side[:2], side[2:]) for side in pair), CLASSES) for pair in (whole, half))
    assert all(part.dtype == paddle.float32 for part in parts.values())
    assert _numbers(parts) == pytest.approx(_numbers(exact), rel=1e-3)


def test_the_teacher_gets_no_gradient():
    student, teacher = (slow.tensors(_side(seed), trained=True) for seed in (0, 1))
    parts = BCKDLoss()((student[:2], student[2:]), (teacher[:2], teacher[2:]), CLASSES)
    sum(parts.values()).backward()
    assert all(x.grad is None for x in teacher)
    assert all(float(x.grad.abs().max()) > 0 for x in student)


def test_a_student_without_boxes_is_finite():
    """Edges that have passed each other everywhere, as in the first steps of a head that predicts them freely."""
    student = slow.tensors(_side(0)[:2] + [-x for x in _side(0)[2:]], trained=True)
    teacher = slow.tensors(_side(1))
    parts = BCKDLoss()((student[:2], student[2:]), (teacher[:2], teacher[2:]), CLASSES)
    sum(parts.values()).backward()
    assert all(np.isfinite(value) for value in _numbers(parts).values())
    assert all(bool(paddle.isfinite(x.grad).all()) for x in student)


@pytest.mark.parametrize("classes", [2, 4, 6])
def test_channels_that_are_no_whole_anchors_are_refused(classes):
    with pytest.raises(ValueError, match=f"bckd: 6 class and 8 box channels, expected A . {classes} and A . 4"):
        _loss(BCKDLoss(), _side(0), _side(1), classes)


@pytest.mark.parametrize("source", [0, 2])
def test_unequal_shapes_are_refused(source):
    student, teacher = _side(0), _side(1)
    teacher[source] = teacher[source][:, :, :1]
    with pytest.raises(ValueError, match="bckd: student .* and teacher .* must have the same shape"):
        _loss(BCKDLoss(), student, teacher)
