"""Boxes that a teacher has found, as targets of the student's own positives: against loops over positives."""

import numpy as np
import paddle
import pytest

from ppkd.detectors.context import Assignment
from ppkd.losses.found_boxes import FoundBoxesLoss

CLASSES, STRIDES, SIZES = 3, (8, 16), ((4, 5), (2, 3))


def made(seed=0, images=2, copies=1):
    """Student's maps, the teacher's boxes and an assignment, as arrays."""
    random = np.random.RandomState(seed)
    cells = sum(h * w for h, w in SIZES)
    maps = [[random.uniform(-2, 2, (images, c, h, w)) for h, w in SIZES] for c in (CLASSES, 4)]
    maps[1] = [np.abs(each) + 0.2 for each in maps[1]]
    low = random.uniform(0, 20, (images, cells, 2))
    truth = np.concatenate([low, low + random.uniform(8, 16, low.shape)], axis=2)
    labels = random.randint(0, CLASSES + 2, (images, cells)).clip(max=CLASSES)
    scores = np.zeros((images, cells, CLASSES))
    for n, a in np.argwhere(labels < CLASSES):
        scores[n, a, labels[n, a]] = random.uniform(0.2, 1)
    found = np.full((images, cells + 2, 6), -1.0)
    for n in range(images):  # near some of the objects, of their class or another
        for j, a in enumerate(range(0, cells, 2)):
            found[n, j] = [labels[n, a] % CLASSES, random.uniform(0.1, 1), *(truth[n, a] + random.uniform(-2, 2, 4))]
    repeat = (lambda x: np.concatenate([x] * copies)) if copies > 1 else (lambda x: x)
    return [[repeat(x) for x in side] for side in maps], *map(repeat, (found, labels, truth, scores))


def loss_of(maps, found, labels, truth, scores, grad=True, **options):
    maps = tuple([paddle.to_tensor(x.astype("float32"), stop_gradient=not grad) for x in side] for side in maps)
    found, truth, scores = (paddle.to_tensor(x.astype("float32")) for x in (found, truth, scores))
    given = Assignment(paddle.to_tensor(labels), truth, scores, CLASSES)
    return FoundBoxesLoss(**options)(maps, [found] * len(STRIDES), given, STRIDES, 0.5), maps


def points():
    """Of every cell x, y and its stride."""
    sizes = [(w, h, s) for (h, w), s in zip(SIZES, STRIDES)]
    return [((x + 0.5) * s, (y + 0.5) * s, s) for w, h, s in sizes for y in range(h) for x in range(w)]


def overlap(a, b):
    wide, high = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - wide * high
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return wide * high / union, wide * high / union - (hull - union) / hull


def slow(maps, found, labels, truth, scores, least=0.5):
    classes, edges = (np.concatenate([x.reshape(*x.shape[:2], -1) for x in side], axis=2) for side in maps)
    sums, total = {"giou": 0.0, "cls": 0.0}, 0.0
    for n, a in np.argwhere(labels < CLASSES):
        weight, label = scores[n, a].sum(), labels[n, a]
        total += weight
        near = [(overlap(truth[n, a], box[2:])[0], -j) for j, box in enumerate(found[n]) if box[0] == label]
        if not near or max(near)[0] < least:
            continue
        _, score, *target = found[n, -max(near)[1]]
        x, y, stride = points()[a]
        left, top, right, bottom = edges[n, :, a] * stride
        sums["giou"] += weight * score * (1 - overlap((x - left, y - top, x + right, y + bottom), target)[1])
        p = 1 / (1 + np.exp(-classes[n, label, a]))
        sums["cls"] += weight * abs(p - score) ** 2 * -(score * np.log(p) + (1 - score) * np.log(1 - p))
    return {"giou": 2.5 * sums["giou"] / total, "cls": sums["cls"] / total}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_what_the_formula_says(seed):
    expected = slow(*made(seed))
    found, _ = loss_of(*made(seed))
    assert expected["giou"] > 0.1 and {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=1e-4)


def test_twice_the_batch_is_the_same_and_each_side_has_a_gradient():
    (once, maps), (twice, _) = loss_of(*made()), loss_of(*made(copies=2))
    assert {k: float(v) for k, v in once.items()} == pytest.approx({k: float(v) for k, v in twice.items()}, rel=1e-5)
    sum(once.values()).backward()
    assert all(float(x.grad.abs().sum()) > 0 and bool(paddle.isfinite(x.grad).all()) for side in maps for x in side)


@pytest.mark.parametrize("what", ["no positive", "nothing found"])
def test_without_a_pair_it_is_zero_and_connected(what):
    maps, found, labels, truth, scores = made()
    if what == "no positive":
        labels, scores = np.full_like(labels, CLASSES), scores * 0
    else:
        found = np.full((2, 1, 6), -1.0)
    losses, maps = loss_of(maps, found, labels, truth, scores)
    assert [float(x) for x in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all(float(x.grad.abs().sum()) == 0 for side in maps for x in side)


def test_a_box_that_is_the_teachers_costs_nothing():
    maps, found, labels, truth, scores = made()
    a = int(np.argmax(labels[0] < CLASSES))
    x, y, stride = points()[a]
    left, top, right, bottom = np.concatenate([each[0].reshape(4, -1) for each in maps[1]], axis=1)[:, a] * stride
    corners = (x - left, y - top, x + right, y + bottom)
    labels[:], scores[:] = CLASSES, 0
    labels[0, a], scores[0, a, 1], truth[0, a] = 1, 1.0, corners
    found[:] = -1
    found[0, 0] = [1, 0.9, *corners]
    losses, _ = loss_of(maps, found, labels, truth, scores)
    assert float(losses["giou"]) == pytest.approx(0, abs=1e-5) and float(losses["cls"]) > 0


def test_other_sources_are_refused():
    maps, found, *rest = made()
    with pytest.raises(ValueError, match="the teacher's source is `found`"):
        loss_of(maps, found[:, :, :4], *rest)
    with pytest.raises(ValueError, match="of one anchor"):
        loss_of([maps[0], maps[0]], found, *rest)
