"""DKD of a dense head: its value against a slow reference, which rows count, and with which label."""

import numpy as np
import paddle
import pytest

from ppkd.losses import DenseDKDLoss
from ppkd.losses.dkd import dkd_parts, dkd_rows, smallest_box

from . import slow

SIZES, STRIDES, OFFSET, BATCH = [(3, 4), (2, 2)], (8, 16), 0.5, 2
CLASSES, ANCHORS = 4, 2
# Of the first image, the second box lies inside of the first and the third one is padding; of the second, one is a box.
BOXES = np.array(
    [
        [[2.0, 2.0, 30.0, 22.0], [10.0, 3.0, 22.0, 14.0], [0.0, 0.0, 40.0, 40.0]],
        [[-5.0, 6.0, 13.0, 40.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    ]
)
VALID = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
LABELS = np.array([[1, 3, 2], [0, -1, 77]])


def _maps(seed, batch=BATCH, anchors=ANCHORS):
    random = np.random.default_rng(seed)
    return [2 * random.standard_normal((batch, anchors * CLASSES, *size)) for size in SIZES]


def _context(boxes=BOXES, valid=VALID, labels=LABELS, offset=OFFSET):
    return {
        "boxes": paddle.to_tensor(boxes, dtype="float32"),
        "boxes_valid": paddle.to_tensor(valid, dtype="float32"),
        "classes": paddle.to_tensor(labels),
        "strides": STRIDES,
        "cell_offset": offset,
        "num_classes": CLASSES,
    }


def _numbers(parts):
    return {name: float(part) for name, part in parts.items()}


def _slow(student, teacher, tau, boxes=BOXES, valid=VALID, labels=LABELS, offset=OFFSET, anchors=ANCHORS):
    """Both parts, one row after the other, and the number of rows that count."""
    tckd, nckd, count = 0.0, 0.0, 0
    for a, n, i, j in slow.cells(teacher):
        x, y = (j + offset) * STRIDES[a], (i + offset) * STRIDES[a]
        label, smallest = None, np.inf
        for (x1, y1, x2, y2), good, own in zip(boxes[n], valid[n], labels[n]):
            if good and x1 < x < x2 and y1 < y < y2 and (x2 - x1) * (y2 - y1) < smallest:
                label, smallest = own, (x2 - x1) * (y2 - y1)
        if label is None:
            continue
        for anchor in range(anchors):
            part = slice(anchor * CLASSES, (anchor + 1) * CLASSES)
            q, p = (slow.softmax(side[a][n, part, i, j] / tau) for side in (student, teacher))
            two_q, two_p = (np.array([d[label], 1 - d[label]]) for d in (q, p))
            rest_q, rest_p = (np.delete(d, label) / (1 - d[label]) for d in (q, p))
            tckd += tau**2 * (two_p * np.log(two_p / two_q)).sum()
            nckd += tau**2 * (rest_p * np.log(rest_p / rest_q)).sum()
            count += 1
    return {"tckd": tckd / count, "nckd": nckd / count}, count


@pytest.mark.parametrize(("tau", "offset", "anchors"), [(1.0, 0.5, 2), (4.0, 0.0, 2), (2.0, 0.5, 1)])
@pytest.mark.parametrize("part", ["tckd", "nckd"])
def test_each_part_follows_its_formula(part, tau, offset, anchors):
    student, teacher = _maps(0, anchors=anchors), _maps(1, anchors=anchors)
    _, count = _slow(student, teacher, tau, offset=offset, anchors=anchors)
    assert 0.2 < count / (32 * anchors) < 0.8  # some count, some do not
    weights = {"tckd": (3.0, 0.0), "nckd": (0.0, 3.0)}[part]
    loss, fixed = DenseDKDLoss(tau, *weights), slow.tensors(teacher)

    def ours(maps):
        parts = loss(maps, fixed, **_context(offset=offset))
        assert list(parts) == [part]
        return parts[part]

    def reference(maps):
        return 3 * _slow(maps, teacher, tau, offset=offset, anchors=anchors)[0][part]

    slow.agree(ours, reference, student)


def test_the_mean_of_rows_is_the_loss_of_a_classifier():
    """One box around everything: all rows count and have one label."""
    student, teacher = _maps(0), _maps(1)
    boxes, labels = np.full((BATCH, 1, 4), [-9.0, -9.0, 99.0, 99.0]), np.full((BATCH, 1), 2)
    parts = DenseDKDLoss(4.0)(
        slow.tensors(student), slow.tensors(teacher), **_context(boxes, np.ones((BATCH, 1)), labels)
    )
    flat = [
        np.concatenate([x.transpose(0, 2, 3, 1).reshape(-1, CLASSES) for x in side]) for side in (student, teacher)
    ]
    expected = dkd_parts(*slow.tensors(flat), paddle.full([len(flat[0])], 2, "int64"), tau=4.0)
    assert _numbers(parts) == pytest.approx(_numbers(expected), rel=1e-10)


def test_terms_average_or_sum_the_rows():
    student, teacher = paddle.randn([5, CLASSES]), paddle.randn([5, CLASSES])
    labels = paddle.to_tensor([0, 1, 2, 3, 1])
    rows = dkd_rows(student, teacher, labels, 2.0)
    assert [row.shape for row in rows] == [[5], [5]]
    for reduction, divisor in (("batchmean", 5), ("sum", 1)):
        terms = dkd_parts(student, teacher, labels, 2.0, reduction)
        for row, term in zip(rows, terms.values()):
            assert float(term) == pytest.approx(float(row.sum()) / divisor, rel=1e-5)


# --- which box a point belongs to --------------------------------------------------------------


def _label_at(x, y, boxes, labels, valid=None):
    valid = np.ones(len(boxes)) if valid is None else valid
    context = _context(np.array([boxes], "float32"), np.array([valid]), np.array([labels]))
    label, inside = smallest_box(
        paddle.to_tensor([[x, y]], dtype="float32"), context["boxes"], context["boxes_valid"], context["classes"]
    )
    return int(label) if float(inside) else None


def test_the_smallest_box_around_a_point_gives_the_label():
    large, small = [0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 20.0, 20.0]
    for boxes, labels in (([large, small], [1, 3]), ([small, large], [3, 1])):
        assert _label_at(15, 15, boxes, labels) == 3
        assert _label_at(25, 25, boxes, labels) == 1
        assert _label_at(45, 25, boxes, labels) is None


def test_padding_is_no_box_whatever_stands_in_it():
    boxes = [[0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 20.0, 20.0]]
    assert _label_at(15, 15, boxes, [1, 999], [1.0, 0.0]) == 1
    assert _label_at(15, 15, boxes[::-1], [-1, 1], [0.0, 1.0]) == 1
    assert _label_at(15, 15, [[0.0] * 4], [999], [0.0]) is None
    assert _label_at(0, 0, [[0.0] * 4], [2]) is None


@pytest.mark.parametrize("point", [(10, 15), (20, 15), (15, 10), (15, 20)])
def test_a_point_on_an_edge_is_outside(point):
    assert _label_at(*point, [[10.0, 10.0, 20.0, 20.0]], [1]) is None


# --- what holds for it -------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("padding", [0, 99])
def test_a_batch_without_boxes_is_zero_and_connected(rows, padding):
    student = slow.tensors(_maps(0), trained=True, dtype="float32")
    nothing = _context(np.zeros((BATCH, rows, 4)), np.zeros((BATCH, rows)), np.full((BATCH, rows), padding))
    parts = DenseDKDLoss()(student, slow.tensors(_maps(1), dtype="float32"), **nothing)
    assert _numbers(parts) == {"tckd": 0, "nckd": 0}
    sum(parts.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_an_image_without_boxes_changes_nothing():
    student, teacher = _maps(0), _maps(1)
    both = DenseDKDLoss()(
        slow.tensors(student), slow.tensors(teacher), **_context(valid=VALID * np.array([[1.0], [0.0]]))
    )
    sides = (slow.tensors([x[:1] for x in side]) for side in (student, teacher))
    first = DenseDKDLoss()(*sides, **_context(BOXES[:1], VALID[:1], LABELS[:1]))
    assert _numbers(both) == pytest.approx(_numbers(first), rel=1e-12)


def test_rows_outside_of_all_boxes_do_not_count():
    student, teacher = _maps(0), _maps(1)
    before = _numbers(DenseDKDLoss()(slow.tensors(student), slow.tensors(teacher), **_context()))
    student[0][0, :, 2, 3] += 50 * np.arange(ANCHORS * CLASSES)  # its point, 28 and 20, is inside of the first box
    inside = _numbers(DenseDKDLoss()(slow.tensors(student), slow.tensors(teacher), **_context()))
    assert inside != pytest.approx(before, rel=1e-3)
    student = _maps(0)
    student[0][1, :, 0, 1] += 50 * np.arange(ANCHORS * CLASSES)
    outside = _numbers(DenseDKDLoss()(slow.tensors(student), slow.tensors(teacher), **_context()))
    assert outside == before


def test_equal_heads_are_zero_and_have_no_gradient():
    student = slow.tensors(_maps(0), trained=True)
    parts = DenseDKDLoss(4.0)(student, [x.detach() for x in student], **_context())
    assert _numbers(parts) == {"tckd": 0, "nckd": 0}
    sum(parts.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_two_copies_give_the_loss_of_one():
    student, teacher = _maps(0), _maps(1)
    once = DenseDKDLoss()(slow.tensors(student), slow.tensors(teacher), **_context())
    twice = [slow.tensors([np.concatenate([x, x]) for x in side]) for side in (student, teacher)]
    context = _context(*(np.concatenate([x, x]) for x in (BOXES, VALID, LABELS)))
    assert _numbers(DenseDKDLoss()(*twice, **context)) == pytest.approx(_numbers(once), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_within_a_thousandth(dtype):
    half = [[x.astype(dtype) for x in slow.tensors(_maps(seed), dtype="float32")] for seed in (0, 1)]
    exact = DenseDKDLoss()(*([x.astype("float32") for x in side] for side in half), **_context())
    parts = DenseDKDLoss()(*half, **_context())
    assert all(part.dtype == paddle.float32 for part in parts.values())
    assert _numbers(parts) == pytest.approx(_numbers(exact), rel=1e-3)


def test_the_teacher_gets_no_gradient():
    student, teacher = (slow.tensors(_maps(seed), trained=True) for seed in (0, 1))
    sum(DenseDKDLoss()(student, teacher, **_context()).values()).backward()
    assert all(x.grad is None for x in teacher)
    assert all(float(x.grad.abs().max()) > 0 for x in student)


def test_a_part_of_weight_zero_is_left_out():
    sides = slow.tensors(_maps(0)), slow.tensors(_maps(1))
    assert list(DenseDKDLoss(beta=0.0)(*sides, **_context())) == ["tckd"]
    assert list(DenseDKDLoss(alpha=0.0)(*sides, **_context())) == ["nckd"]


@pytest.mark.parametrize(
    ("classes", "message"), [(3, r"dkd: 8 channels, expected A \* 3"), (1, "dkd: with a single class")]
)
def test_channels_that_are_no_whole_anchors_and_single_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        DenseDKDLoss()(slow.tensors(_maps(0)), slow.tensors(_maps(1)), **{**_context(), "num_classes": classes})


def test_unequal_levels_are_refused():
    student, teacher = slow.tensors(_maps(0)), slow.tensors(_maps(1))
    with pytest.raises(ValueError, match="dkd: 2 levels of the student and 1 of the teacher"):
        DenseDKDLoss()(student, teacher[:1], **_context())
    turned = [x.transpose([0, 1, 3, 2]) for x in teacher]  # as many rows, of other places
    with pytest.raises(ValueError, match="dkd: student .* and teacher .* must have the same shape"):
        DenseDKDLoss()(student, turned, **_context())
