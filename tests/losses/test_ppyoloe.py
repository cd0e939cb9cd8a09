"""PP-YOLOE's logits: four terms against slow references, and what no positive, no class and no bin may change."""

import numpy as np
import paddle
import pytest

from ppkd.detectors.context import Assignment
from ppkd.losses import PPYOLOELoss
from ppkd.losses.boxes import distances, giou_loss
from ppkd.losses.ppyoloe import ppyoloe_parts

from . import slow

PLACES, CLASSES, BINS = 12, 3, 5


def _pair(batch=2, classes=CLASSES, trained=False):
    pair = paddle.randn([batch, PLACES, classes]), paddle.randn([batch, PLACES, 4 * BINS])
    for x in pair:
        x.stop_gradient = not trained
    return pair


def _targets(batch=2, classes=CLASSES, every=3):
    """Scores and positives: every third place has a target, of one class."""
    positive = (np.arange(PLACES) % every == 0).astype("float32") if every else np.zeros(PLACES, "float32")
    scores = np.eye(classes, dtype="float32")[np.arange(PLACES) % classes] * np.linspace(0.3, 0.9, PLACES)[:, None]
    scores = (scores * positive[:, None]).astype("float32")
    return tuple(paddle.to_tensor(np.stack([x] * batch)) for x in (scores, positive))


def _numbers(terms):
    return {name: float(term) for name, term in terms.items()}


def _reference(student, teacher, scores, positive, temp, beta, first_bin):
    """One place after the other, in float64."""
    (s_cls, s_box), (t_cls, t_box) = ([x.numpy().astype("float64") for x in side] for side in (student, teacher))
    scores, positive = scores.numpy(), positive.numpy()
    focal, iou, dfl, kd, total = 0.0, 0.0, 0.0, 0.0, 0.0
    for n, place in np.ndindex(*positive.shape):
        s, t = slow.sigmoid(s_cls[n, place]), slow.sigmoid(t_cls[n, place])
        focal += (abs(s - t) ** beta * -(t * np.log(s) + (1 - t) * np.log(1 - s))).sum()
        if not positive[n, place]:
            continue
        weight = scores[n, place].sum()
        total += weight
        ours, theirs = ([slow.softmax(x) for x in side[n, place].reshape(4, BINS)] for side in (s_box, t_box))
        boxes = []
        for edges in (ours, theirs):
            left, top, right, bottom = ((p * (np.arange(BINS) + first_bin)).sum() for p in edges)
            boxes.append([7 - left, 5 - top, 7 + right, 5 + bottom])
        iou += weight * (1 - slow.giou(*boxes))
        dfl += weight * np.mean([-(q * np.log(p)).sum() for p, q in zip(ours, theirs)])
        p, q = slow.softmax(t / temp), slow.softmax(s / temp)
        kd += temp**2 * (p * np.log(p / q)).mean()
    return {"class": focal / max(total, 1), "iou": iou / total, "dfl": dfl / total, "kd": kd / positive.sum()}


@pytest.mark.parametrize(("temp", "beta", "first_bin"), [(10.0, 2.0, 0), (2.0, 1.0, 0), (10.0, 2.0, -1)])
def test_terms_follow_their_formulas(temp, beta, first_bin):
    student, teacher, targets = _pair(), _pair(), _targets()
    terms = _numbers(ppyoloe_parts(student, teacher, *targets, temp, beta, first_bin))
    assert terms == pytest.approx(_reference(student, teacher, *targets, temp, beta, first_bin), rel=1e-4)


def test_distances_are_expected_bins():
    edges = paddle.full([1, 4, 20], -40.0)
    for edge in range(4):
        edges[:, edge, edge * 5 + edge] = 40.0
    expected = np.eye(4) * np.arange(4) + (1 - np.eye(4)) * 2
    np.testing.assert_allclose(distances(edges, 0)[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(distances(edges, -2)[0].numpy(), distances(edges)[0].numpy() - 2, atol=1e-6)


def test_giou_of_boxes_that_do_not_meet_is_below_zero():
    """Around one point that takes an edge on the far side of it, as PP-YOLOE with bins below zero has."""
    a, b = paddle.to_tensor([-1.0, 1.0, 2.0, 1.0]), paddle.to_tensor([2.0, 1.0, -1.0, 1.0])
    assert float(giou_loss(a, b)) == pytest.approx(1 - slow.giou([1, -1, 2, 1], [-2, -1, -1, 1]))


def test_giou_stays_between_0_and_2_where_edges_have_passed_each_other():
    a, b = paddle.randn([2, 1000, 4]).unbind()
    a.stop_gradient = False
    loss = giou_loss(a, b)
    assert float(loss.min()) >= 0 and float(loss.max()) <= 2 + 1e-6
    loss.sum().backward()
    assert bool(paddle.isfinite(a.grad).all())


def test_no_positive_leaves_the_class_term_alone_and_all_connected():
    student, teacher = _pair(trained=True), _pair()
    terms = ppyoloe_parts(student, teacher, *_targets(every=0))
    assert float(terms["class"]) > 0
    assert [float(terms[name]) for name in ("iou", "dfl", "kd")] == [0, 0, 0]
    sum(terms.values()).backward()
    assert float(student[0].grad.abs().max()) > 0 and float(student[1].grad.abs().max()) == 0


def test_a_positive_of_score_zero_stays_finite():
    student, teacher = _pair(trained=True), _pair()
    scores, positive = _targets()
    terms = ppyoloe_parts(student, teacher, paddle.zeros_like(scores), positive)
    sum(terms.values()).backward()
    assert all(np.isfinite(value) for value in _numbers(terms).values())
    assert all(bool(paddle.isfinite(x.grad).all()) for x in student)


def test_places_without_a_target_count_for_the_class_term_only():
    student, teacher, (scores, positive) = _pair(), _pair(), _targets()
    before = _numbers(ppyoloe_parts(student, teacher, scores, positive))
    rest = (1 - positive).unsqueeze(-1)
    moved = [x + rest * paddle.randn(x.shape) for x in student]
    after = _numbers(ppyoloe_parts(moved, teacher, scores + rest, positive))
    assert before.pop("class") != pytest.approx(after.pop("class"))
    assert after == pytest.approx(before, rel=1e-5)


def test_a_batch_of_two_copies_gives_the_terms_of_one():
    student, teacher = _pair(1), _pair(1)
    once = ppyoloe_parts(student, teacher, *_targets(1))
    pairs = [tuple(paddle.concat([x, x]) for x in side) for side in (student, teacher)]
    assert _numbers(ppyoloe_parts(*pairs, *_targets(2))) == pytest.approx(_numbers(once), rel=1e-5)


def test_equal_heads_have_no_gradient_but_that_of_the_giou_kink():
    student = _pair(trained=True)
    terms = ppyoloe_parts(student, tuple(x.detach() for x in student), *_targets())
    assert float(terms["class"]) == float(terms["kd"]) == 0
    assert float(terms["iou"]) == pytest.approx(0, abs=1e-6)
    for name in ("class", "dfl", "kd"):
        gradients = paddle.grad(terms[name], student, retain_graph=True, allow_unused=True)
        assert max(float(x.abs().max()) for x in gradients if x is not None) < 1e-7, name


# --- all levels of a head ----------------------------------------------------------------------


def _assignment(classes, batch=2):
    scores, positive = _targets(batch, classes)
    labels = paddle.where(positive > 0, scores.argmax(-1), paddle.full_like(scores.argmax(-1), classes))
    return Assignment(labels, None, scores, background=classes)


def _maps(rows):
    """Rows (N, A, C) as maps of two levels."""
    maps = rows.transpose([0, 2, 1])
    return [maps[:, :, :8].reshape([len(rows), -1, 2, 4]), maps[:, :, 8:].reshape([len(rows), -1, 2, 2])]


def _of_head(loss, student, teacher, classes=CLASSES):
    sides = [tuple(_maps(x) for x in side) for side in (student, teacher)]
    return loss(*sides, _assignment(classes), 0)


def test_levels_are_rows_one_after_the_other_and_weights_are_applied():
    student, teacher = _pair(), _pair()
    loss = PPYOLOELoss(2.0, 3.0, 4.0, 5.0, kd_temp=4.0, beta=1.0, kd_per_class=False)
    terms = ppyoloe_parts(student, teacher, *_targets(), 4.0, 1.0)
    expected = {name: weight * float(terms[name]) for name, weight in loss.weights.items()}
    assert _numbers(_of_head(loss, student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_a_term_of_weight_zero_is_left_out():
    assert list(_of_head(PPYOLOELoss(iou_weight=0.0), _pair(), _pair())) == ["class", "dfl"]


def _kd_of_one_wrong_class(classes, per_class):
    teacher = _pair(classes=classes)
    student = teacher[0].clone(), teacher[1]
    student[0][:] = 0.0
    teacher[0][:] = 0.0
    teacher[0][:, :, 0] = 1.0
    loss = PPYOLOELoss(0.0, 0.0, 0.0, kd_weight=20000, kd_per_class=per_class)
    return float(_of_head(loss, student, teacher, classes)["kd"])


def test_kd_means_the_same_for_any_number_of_classes():
    """One class is off by the same amount; but for that class's own share in the mean the loss is the same."""
    of_80 = _kd_of_one_wrong_class(80, True)
    for classes in (2, 3, 20):
        share = (1 - 1 / classes) / (1 - 1 / 80)
        assert _kd_of_one_wrong_class(classes, True) == pytest.approx(of_80 * share, rel=3e-2)
        assert _kd_of_one_wrong_class(classes, False) > 0.5 * (80 / classes) ** 2 * of_80 * share
    assert _kd_of_one_wrong_class(80, False) == of_80


@pytest.mark.parametrize("part", [0, 1])
def test_unequal_shapes_are_refused(part):
    student, teacher = _pair(), list(_pair())
    teacher[part] = teacher[part][:, :, 1:]
    with pytest.raises(ValueError, match="ppyoloe: student .* and teacher .* must have the same shape"):
        _of_head(PPYOLOELoss(), student, teacher)


def test_half_precision_is_close():
    student, teacher = _pair(), _pair()
    half = ([x.astype("float16") for x in side] for side in (student, teacher))
    exact = _numbers(_of_head(PPYOLOELoss(kd_weight=1.0), student, teacher))
    for name, term in _of_head(PPYOLOELoss(kd_weight=1.0), *half).items():
        assert term.dtype == paddle.float32
        assert float(term) == pytest.approx(exact[name], rel=1e-2)


@pytest.mark.parametrize("total", [0.01, 0.5, 3.0])
def test_few_targets_weigh_the_same_in_a_batch_of_any_size(total):
    student, teacher = _pair(), _pair()
    scores, positive = _targets()
    scores = scores * (total / float((scores.sum(axis=-1) * positive).sum()))

    def class_term(copies, **options):
        def tiled(x):
            return x.tile([copies] + [1] * (x.ndim - 1))

        sides = (tuple(map(tiled, side)) for side in (student, teacher))
        return float(ppyoloe_parts(*sides, tiled(scores), tiled(positive), **options)["class"])

    assert class_term(6) == pytest.approx(class_term(1), rel=1e-5)
    # PaddleDetection's floor does not grow with the batch.
    assert class_term(1, batch_floor=True) == pytest.approx(class_term(1) * min(1, max(total, 2 / 8)), rel=1e-4)
