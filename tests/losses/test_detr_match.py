"""Sets of predictions, matched or of the same queries: slow formulations, and what the matching does not look at."""

import itertools

import numpy as np
import paddle
import pytest

from ppkd.losses.detr_match import DETRMatchLoss
from ppkd.losses.shared_queries import SharedQueriesLoss

CLASSES = 3


def sets(seed, queries, layers=2, images=2):
    """Class logits and boxes, a list entry a layer."""
    random = np.random.RandomState(seed)
    logits = [random.standard_normal((images, queries, CLASSES)).astype("float32") * 2 for _ in range(layers)]
    boxes = [random.uniform(0.1, 0.5, (images, queries, 4)).astype("float32") for _ in range(layers)]
    return logits, boxes


def tensors(side):
    return tuple([paddle.to_tensor(x, stop_gradient=False) for x in each] for each in side)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype("float64")))


def giou(a, b):
    """Of two boxes given by centre and size, edge by edge."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = ((x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (a, b))
    wide, high = max(min(bx, dx) - max(ax, cx), 0), max(min(by, dy) - max(ay, cy), 0)
    union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - wide * high
    hull = (max(bx, dx) - min(ax, cx)) * (max(by, dy) - min(ay, cy))
    return wide * high / union - (hull - union) / hull


def slow(student, teacher, top, kl=False):
    """Every assignment is tried, and every sum is a loop."""
    found = {"cls": [], "l1": [], "giou": []}
    for s_logits, s_boxes, t_logits, t_boxes in zip(*student, *teacher):
        sums, weights = dict.fromkeys(found, 0.0), 0.0
        for n in range(len(s_logits)):
            p, q = sigmoid(s_logits[n]), sigmoid(t_logits[n])
            kept = sorted(range(len(q)), key=lambda j: -q[j].max())[: min(top, len(p))]

            a, b = s_boxes[n], t_boxes[n]
            cost = {
                (j, i): 2 * ((p[i] - q[j]) ** 2).sum() + 5 * np.abs(a[i] - b[j]).sum() + 2 * (1 - giou(a[i], b[j]))
                for j in kept for i in range(len(p))
            }  # fmt: skip
            orders = itertools.permutations(range(len(p)), len(kept))
            _, best = min((sum(cost[pair] for pair in zip(kept, order)), order) for order in orders)
            for j, i in zip(kept, best):
                weight = q[j].max()
                weights += weight
                entropy = -(q[j] * np.log(q[j]) + (1 - q[j]) * np.log(1 - q[j])).sum() if kl else 0.0
                bce = -(q[j] * np.log(p[i]) + (1 - q[j]) * np.log(1 - p[i]))
                sums["cls"] += bce.sum() - entropy if kl else ((p[i] - q[j]) ** 2 * bce).sum()
                sums["l1"] += 5 * weight * np.abs(a[i] - b[j]).sum()
                sums["giou"] += 2 * weight * (1 - giou(a[i], b[j]))
        for name, value in sums.items():
            found[name].append(value / max(weights, len(s_logits)))
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize(("ours", "theirs", "top"), [(5, 5, 100), (6, 4, 100), (4, 6, 100), (5, 6, 3)])
@pytest.mark.parametrize("kl", [False, True])
def test_it_is_what_trying_every_assignment_finds(ours, theirs, top, kl):
    student, teacher = sets(0, ours), sets(1, theirs)
    found = DETRMatchLoss("kl" if kl else "qfl", top=top)(tensors(student), tensors(teacher))
    for name, value in slow(student, teacher, top, kl).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_the_order_of_queries_does_not_matter_and_each_layer_has_its_own():
    student, teacher = sets(0, 7), sets(1, 7)
    loss = DETRMatchLoss()
    once = loss(tensors(student), tensors(teacher))
    orders = [np.random.RandomState(k).permutation(7) for k in range(2)]
    mixed = tuple([x[:, order] for x, order in zip(each, orders)] for each in teacher)
    again = loss(tensors(student), tensors(mixed))
    assert {k: float(v) for k, v in again.items()} == pytest.approx({k: float(v) for k, v in once.items()}, rel=1e-5)


def test_a_set_in_another_order_is_the_same_set():
    teacher = sets(1, 9)
    order = np.random.RandomState(0).permutation(9)
    found = DETRMatchLoss()(tensors(tuple([x[:, order] for x in each] for each in teacher)), tensors(teacher))
    assert max(abs(float(value)) for value in found.values()) < 1e-5


def test_what_is_not_finite_is_left_to_who_looks_at_losses():
    student = sets(0, 4)
    student[0][0][0, 0] = np.nan
    assert not np.isfinite(float(DETRMatchLoss()(tensors(student), tensors(sets(1, 4)))["cls"]))


@pytest.mark.parametrize("wrong", [lambda x: x[0], lambda x: ([y[..., 1:] for y in x[0]], x[1])])
def test_other_sources_and_other_classes_are_refused(wrong):
    with pytest.raises(ValueError, match="detr_match"):
        DETRMatchLoss()(tensors(sets(0, 4)), wrong(tensors(sets(1, 4))))


def slow_of_the_same_queries(student, teacher, kl):
    """KD-DETR's sum, query by query in the order in which they come."""
    found = {"cls": [], "l1": [], "giou": []}
    for s_logits, s_boxes, t_logits, t_boxes in zip(*student, *teacher):
        sums, weights = dict.fromkeys(found, 0.0), 0.0
        for n, i in itertools.product(range(len(s_logits)), range(s_logits.shape[1])):
            p, q = sigmoid(s_logits[n, i]), sigmoid(t_logits[n, i])
            weights += q.max()
            apart = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
            bce = -(q * np.log(p) + (1 - q) * np.log(1 - p))
            sums["cls"] += q.max() * (apart if kl else (p - q) ** 2 * bce).sum()
            sums["l1"] += 5 * q.max() * np.abs(s_boxes[n, i] - t_boxes[n, i]).sum()
            sums["giou"] += 2 * q.max() * (1 - giou(s_boxes[n, i], t_boxes[n, i]))
        for name, value in sums.items():
            found[name].append(value / max(weights, len(s_logits)))
    return {name: np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("kl", [True, False])
@pytest.mark.parametrize("queries", [2, 9])
def test_the_same_queries_are_compared_one_by_one(kl, queries):
    student, teacher = sets(0, queries, layers=3), sets(1, queries, layers=3)
    found = SharedQueriesLoss(cls="kl" if kl else "qfl")(tensors(student), tensors(teacher))
    for name, value in slow_of_the_same_queries(student, teacher, kl).items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize(
    "wrong", [{"general": None}, {"general": -1}, {"general": 0, "specific": 0}, {"specific": 1.5}]
)
def test_no_queries_are_refused(wrong):
    with pytest.raises(ValueError, match="shared_queries: (general|specific)"):
        SharedQueriesLoss(**wrong)


def test_queries_that_are_not_the_same_are_refused():
    with pytest.raises(ValueError, match="not decoded the same queries"):
        SharedQueriesLoss()(tensors(sets(0, 4)), tensors(sets(1, 5)))


@pytest.mark.parametrize("loss", [DETRMatchLoss, SharedQueriesLoss])
@pytest.mark.parametrize("option", ["weight_cls", "weight_l1", "weight_giou", "beta"])
def test_what_would_drive_the_two_apart_is_refused(loss, option):
    with pytest.raises(ValueError, match=f"{loss.called}: {option} is -1.0, expected a number from 0"):
        loss(**{option: -1.0})


def test_a_cost_below_zero_is_refused():
    with pytest.raises(ValueError, match="detr_match: cost_l1 is -5, expected a number from 0"):
        DETRMatchLoss(cost_l1=-5)
