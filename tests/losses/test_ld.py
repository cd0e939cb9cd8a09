"""LD: where its anchors are, which of them count, and how its levels add up."""

import numpy as np
import paddle
import pytest

from ppkd.losses import LDLoss
from ppkd.losses.atss import atss_regions, square_anchors
from ppkd.losses.ld import ld_parts, ld_rows

CLASSES, BINS, SIZE, BATCH = 3, 4, (4, 5), 2
CELLS = SIZE[0] * SIZE[1]


def _sides(batch=BATCH):
    """(classes, edges) of student and teacher; the student's take gradients."""
    sides = []
    for trained in (True, False):
        maps = [paddle.randn([batch, channels, *SIZE]) for channels in (CLASSES, 4 * BINS)]
        for x in maps:
            x.stop_gradient = not trained
        sides.append(tuple(maps))
    return sides


def _targets(batch=BATCH, share=0.5):
    positive = paddle.rand([1, CELLS]) < share
    region = paddle.rand([1, CELLS]) * (paddle.rand([1, CELLS]) < share).astype("float32")
    return [x.tile([batch, 1]) for x in (positive, paddle.ones([1, CELLS]), region)]


def test_ld_without_positives_is_zero_and_connected():
    student, teacher = _sides()
    terms = ld_parts(student, teacher, *_targets(share=0.0))
    assert all(float(term) == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_ld_of_equal_heads_is_zero_and_has_no_gradient():
    student, _ = _sides()
    terms = ld_parts(student, tuple(x.detach() for x in student), *_targets())
    assert all(float(term) == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_ld_of_two_copies_is_that_of_one_unless_summed_as_the_authors_do():
    sides, targets = _sides(1), _targets(1)
    once = ld_parts(*sides, *targets)
    pairs = [tuple(paddle.concat([x, x]) for x in side) for side in sides]
    doubled = [paddle.concat([x, x]) for x in targets]
    averaged, summed = (ld_parts(*pairs, *doubled, batch_average=average) for average in (True, False))
    for name, term in once.items():
        assert float(averaged[name]) == pytest.approx(float(term), rel=1e-5)
    for name in ("ld", "ld_vlr"):
        assert float(summed[name]) == pytest.approx(2 * float(once[name]), rel=1e-5)


def test_ld_in_half_precision_is_close():
    sides, targets = _sides(), _targets()
    half = [tuple(x.detach().astype("float16") for x in side) for side in sides]
    exact = ld_parts(*sides, *targets)
    for name, term in ld_parts(*half, *targets).items():
        assert term.dtype == paddle.float32
        assert float(term) == pytest.approx(float(exact[name]), rel=1e-2)


def _anchors():
    centre = (paddle.stack(paddle.meshgrid(paddle.arange(6), paddle.arange(6)), -1) + 0.5) * 8
    centre = centre.reshape([-1, 2]).astype("float32")
    return paddle.concat([centre - 12, centre + 12], axis=1)


@pytest.mark.parametrize("rows", [0, 2])
def test_regions_without_boxes_are_empty(rows):
    boxes = paddle.zeros([2, rows, 4])
    assigned, region = atss_regions(_anchors(), [36], boxes, paddle.zeros([2, rows]))
    assert assigned.shape == region.shape == [2, 36]
    assert int(assigned.max()) == 0 and float(region.max()) == 0


def test_padding_does_not_change_the_regions_of_an_image():
    box = paddle.to_tensor([[[4.0, 6.0, 30.0, 33.0]]])
    alone = atss_regions(_anchors(), [36], box, paddle.ones([1, 1]))
    rest = paddle.to_tensor([[[0.0, 0.0, 0.0, 0.0], [10.0, 5.0, 44.0, 40.0]]])
    padded = paddle.concat([box, rest], axis=1)
    beside = atss_regions(_anchors(), [36], padded, paddle.to_tensor([[1.0, 0.0, 0.0]]))
    assert int((alone[0] > 0).sum()) > 0 and int((alone[1] > 0).sum()) > 0
    for ours, expected in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


def test_rows_follow_their_formula():
    random = np.random.default_rng(0)
    student, teacher = random.standard_normal((2, 5, 7))

    def log_softmax(x):
        return x / 3 - np.log(np.exp(x / 3).sum(-1, keepdims=True))

    p, q = log_softmax(teacher), log_softmax(student)
    expected = 9 * (np.exp(p) * (p - q)).mean(-1)
    ours = ld_rows(*(paddle.to_tensor(x, dtype="float32") for x in (student, teacher)), temp=3.0)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_square_anchors_stand_around_the_points_of_cells(offset):
    sizes, strides = [(2, 3), (1, 2)], (8, 16)
    expected = []
    for (height, width), stride in zip(sizes, strides):
        for row in range(height):
            for column in range(width):
                x, y, half = (column + offset) * stride, (row + offset) * stride, 2.5 * stride
                expected.append([x - half, y - half, x + half, y + half])
    np.testing.assert_array_equal(square_anchors(sizes, strides, 5.0, offset).numpy(), np.array(expected, "float32"))


# --- all levels of a head ----------------------------------------------------------------------

LEVELS, STRIDES = [(6, 8), (3, 4)], (8, 16)
BOXES = paddle.to_tensor([[[4.0, 6.0, 40.0, 37.0], [30.0, 2.0, 62.0, 46.0]]])


def _heads(batch=1):
    """Pairs of lists (classes, edges) of student and teacher; the student's take gradients."""
    sides = []
    for trained in (True, False):
        side = tuple([paddle.randn([batch, channels, *size]) for size in LEVELS] for channels in (CLASSES, 4 * BINS))
        for x in side[0] + side[1]:
            x.stop_gradient = not trained
        sides.append(side)
    return sides


def _of_head(loss, sides, boxes=BOXES, valid=None):
    valid = paddle.ones(boxes.shape[:2]) if valid is None else valid
    return loss(*sides, boxes, valid, STRIDES, 0.5)


def test_levels_add_up_with_their_weights():
    sides, weights = _heads(), {"main": 0.5, "vlr": 2.0, "kd": 3.0}
    temps = {"ld_temp": 4.0, "vlr_temp": 5.0, "kd_temp": 6.0}
    terms = _of_head(LDLoss(*weights.values(), **temps, anchor_scale=4.0, kd_per_class=False), sides)
    anchors = square_anchors(LEVELS, STRIDES, 4.0, 0.5)
    assigned, region = atss_regions(anchors, [48, 12], BOXES, paddle.ones([1, 2]))
    expected = dict.fromkeys(weights, 0.0)
    for level, cells in enumerate((slice(0, 48), slice(48, 60))):
        pairs = [(cls[level], box[level]) for cls, box in sides]
        targets = assigned[:, cells] > 0, paddle.ones_like(region[:, cells]), region[:, cells]
        for name, term in zip(weights, ld_parts(*pairs, *targets, 4.0, 5.0, 6.0).values()):
            expected[name] += float(term) * weights[name]
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    assert min(expected.values()) > 0


@pytest.mark.parametrize("rows", [0, 2])
def test_a_batch_without_boxes_is_zero_and_connected(rows):
    sides = _heads(2)
    terms = _of_head(LDLoss(), sides, paddle.zeros([2, rows, 4]), paddle.zeros([2, rows]))
    assert [float(term) for term in terms.values()] == [0, 0, 0]
    sum(terms.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in sides[0][0] + sides[0][1])


def test_an_image_without_boxes_adds_nothing_but_its_share_of_the_average():
    sides = _heads(2)
    boxes = paddle.concat([BOXES, paddle.zeros_like(BOXES)])
    both = _of_head(LDLoss(), sides, boxes, paddle.to_tensor([[1.0, 1.0], [0.0, 0.0]]))
    first = _of_head(LDLoss(), [tuple([x[:1] for x in levels] for levels in side) for side in sides])
    for name, share in (("main", 2), ("vlr", 2), ("kd", 1)):
        assert float(both[name]) * share == pytest.approx(float(first[name]), rel=1e-5)


def test_the_sum_over_the_batch_is_an_option():
    sides = _heads(2)
    averaged, summed = (_of_head(LDLoss(batch_average=x), sides, BOXES.tile([2, 1, 1])) for x in (True, False))
    for name, factor in (("main", 2), ("vlr", 2), ("kd", 1)):
        assert float(summed[name]) == pytest.approx(factor * float(averaged[name]), rel=1e-5)


def test_biased_positives_have_the_lower_threshold_and_the_same_region():
    """Of random boxes some take anchors between both thresholds, and none gives one up."""
    corner = paddle.rand([200, 1, 2]) * 24
    boxes = paddle.concat([corner, corner + 8 + paddle.rand([200, 1, 2]) * 16], axis=2)
    (usual, region), (biased, same) = (
        atss_regions(_anchors(), [36], boxes, paddle.ones([200, 1]), biased_positives=x) for x in (False, True)
    )
    np.testing.assert_array_equal(region.numpy(), same.numpy())
    assert ((biased > 0) | (usual == 0)).all() and int((biased > 0).sum()) > int((usual > 0).sum())


@pytest.mark.parametrize("side", [0, 1])
def test_heads_of_unequal_shapes_are_refused(side):
    student, teacher = _heads()
    wrong = list(teacher)
    wrong[side] = [x[:, 1:] for x in wrong[side]]
    with pytest.raises(ValueError, match="ld: student .* and teacher .* must have the same shape"):
        _of_head(LDLoss(), (student, tuple(wrong)))


def test_the_loss_of_a_head_takes_biased_positives_if_told_to():
    sides, box = _heads(), paddle.to_tensor([[[30.0, 5.0, 58.0, 31.0]]])
    usual, biased = (_of_head(LDLoss(anchor_scale=4.0, biased_positives=x), sides, box) for x in (False, True))
    assert float(biased["main"]) > float(usual["main"])
    assert float(biased["vlr"]) == float(usual["vlr"])


@pytest.mark.parametrize("classes", [4, 80])
def test_kd_per_class_weighs_the_classes_as_on_coco(classes):
    sides = [([paddle.randn([1, classes, 8, 8])], [paddle.randn([1, 4 * 5, 8, 8])]) for _ in range(2)]
    box = paddle.to_tensor([[[10.0, 10.0, 50.0, 44.0]]])
    known = {"boxes": box, "boxes_valid": paddle.ones([1, 1]), "strides": (8,), "cell_offset": 0.5}
    usual, scaled = (LDLoss(anchor_scale=4.0, kd_per_class=x)(*sides, **known) for x in (False, True))
    assert float(usual["kd"]) > 0
    assert float(scaled["kd"]) == pytest.approx(float(usual["kd"]) * classes / 80)
    assert float(scaled["main"]) == float(usual["main"]) and float(scaled["vlr"]) == float(usual["vlr"])
