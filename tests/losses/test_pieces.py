"""Maps are gone over in pieces on the CPU: whatever the pieces, values and gradients are those of the whole."""

import functools

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.detectors.context import Assignment
from ppkd.engine.balance import gradient
from ppkd.losses import CWDLoss, FGDLoss, KLLoss, LDLoss, PKDLoss, PPYOLOELoss, fgd_levels, kernels
from ppkd.losses.atss import atss_regions, square_anchors
from ppkd.losses.ld import ld_parts
from ppkd.losses.masks import box_masks, masks_of_levels
from ppkd.losses.normalise import batch_standardise, pkd_standardise
from ppkd.losses.pkd import pkd

SHAPE = (3, 10, 6, 7)


def _fgd():
    loss, valid = FGDLoss(SHAPE[1], lambda_=1e-3), paddle.ones([3, 1])
    for parameter in loss.parameters():
        parameter.set_value(paddle.rand(parameter.shape))
    boxes = paddle.to_tensor([[[4.0, 6.0, 30.0, 25.0]]]).tile([3, 1, 1])
    frame = paddle.to_tensor([[48.0, 56.0]]).tile([3, 1])
    return loss, lambda s, t: loss(s, t, boxes, valid, frame, (48, 56))


def _plain(kind, **options):
    loss = kind(**options)
    return loss, lambda s, t: {"": loss(s, t)}


LOSSES = {
    "fgd": _fgd, "cwd": lambda: _plain(CWDLoss, tau=2.0), "kl": lambda: _plain(KLLoss),
    "pkd": lambda: _plain(PKDLoss), "pkd unbiased": lambda: _plain(PKDLoss, unbiased=True),
}  # fmt: skip


def _cut(monkeypatch, size):
    cut = kernels.pieces
    monkeypatch.setattr(kernels, "pieces", lambda x, _=None, shape=None: cut(x, size, shape))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1, 42 * 3, 42 * 4])
def test_pieces_of_any_size_give_what_the_whole_gives(name, size, monkeypatch):
    loss, compute = LOSSES[name]()
    student, teacher = paddle.randn(SHAPE), paddle.randn(SHAPE)
    student.stop_gradient = False

    def run():
        student.clear_gradient(False)
        loss.clear_gradients()
        values = compute(student, teacher)
        sum(values.values()).backward()
        gradients = [student.grad.numpy(), *(p.grad.numpy() for p in loss.parameters())]
        return [float(value) for value in values.values()], gradients

    values, gradients = run()
    _cut(monkeypatch, size)
    assert name == "kl" or len(kernels.pieces(student.flatten(2))) == 3
    again, cut = run()
    assert again == pytest.approx(values, rel=1e-5)
    for ours, whole in zip(cut, gradients, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def _heads():
    sizes = [(6, 8), (3, 4), (1, 2)]
    sides = [[[paddle.randn([2, channels, *size]) for size in sizes] for channels in (3, 16)] for _ in range(2)]
    leaves = [x for maps in sides[0] for x in maps]
    for x in leaves:
        x.stop_gradient = False
    return sides, leaves


def _ld_of_head():
    sides, leaves = _heads()
    return leaves, lambda: LDLoss(kd_per_class=False)(*sides, *_boxes(), (8, 16, 32), 0.5)


def _ppyoloe_of_head():
    sides, leaves = _heads()
    labels, scores = paddle.randint(0, 4, [2, 62]), paddle.rand([2, 62, 3])
    loss = PPYOLOELoss(kd_weight=20000.0, kd_per_class=False)
    return leaves, lambda: loss(*sides, Assignment(labels, None, scores, 3), 0)


def _of_maps(name):
    student, teacher = paddle.randn(SHAPE) * 3, paddle.randn(SHAPE) * 3
    student.stop_gradient = False
    loss, compute = LOSSES[name]()
    return [student, *loss.parameters()], lambda: compute(student, teacher)


ON_DEVICES = {name: functools.partial(_of_maps, name) for name in LOSSES}
ON_DEVICES |= {"ld": _ld_of_head, "ppyoloe": _ppyoloe_of_head}


def _fgd_of_levels(dtype="float32"):
    """Maps of three levels, two of them of the same channels; these and what is learned but norms are of a type."""
    shapes = [(2, 6, 12, 16), (2, 6, 6, 8), (2, 4, 3, 4)]
    sides = [[paddle.randn(shape) for shape in shapes] for _ in range(2)]
    losses = [FGDLoss(shape[1], alpha=1e-2, beta=1e-2, gamma=1e-2, lambda_=1e-2) for shape in shapes]
    for x in (*sides[0], *(p for loss in losses for p in loss.parameters())):
        x.set_value(paddle.randn(x.shape) * 0.5)
    for layer in (layer for loss in losses for layer in loss.sublayers() if isinstance(layer, nn.Linear)):
        layer.to(dtype=dtype)
    sides = [[x.astype(dtype).detach() for x in side] for side in sides]
    leaves = [*sides[0], *(p for loss in losses for p in loss.parameters())]
    for x in leaves:
        x.stop_gradient = False
    valid = paddle.to_tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]])
    rest = _boxes()[0], valid, paddle.to_tensor([[48.0, 64.0], [40.0, 60.0]]), (48, 64)
    return leaves, lambda: _named(FGDLoss.together(losses, *sides, *rest))


def _named(levels):
    return {f"{i}.{name}": value for i, parts in enumerate(levels) for name, value in parts.items()}


@pytest.mark.parametrize("name", ON_DEVICES)
def test_the_way_of_another_device_gives_the_same(name, monkeypatch):
    """In each part, and in the gradient of each part."""
    leaves, compute = ON_DEVICES[name]()

    def run():
        return {
            part: [value, *paddle.grad(value, leaves, retain_graph=True, allow_unused=True)]
            for part, value in compute().items()
        }

    here = run()
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    there = run()
    for part, expected in here.items():
        for ours, theirs in zip(there[part], expected, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                scale = float(theirs.abs().max())
                np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=3e-6 * scale, err_msg=part)


@pytest.mark.parametrize("most", [0, 2500, 10**6])
def test_levels_of_fgd_together_give_what_each_gives_alone(most, monkeypatch):
    """None of them as one; the smaller one of each number of channels, where both are small but not together; all.

    In each part, and its gradient.
    """
    leaves, compute = _fgd_of_levels()

    def run():
        found = {}
        for part, value in compute().items():
            slopes = paddle.grad(value, leaves, retain_graph=True, allow_unused=True)
            found[part] = [value, *(paddle.zeros_like(x) if s is None else s for x, s in zip(leaves, slopes))]
        return found

    here = run()
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    monkeypatch.setattr(fgd_levels, "_MOST", most)
    groups = {0: [], 2500: [[2], [1]], 10**6: [[2], [1, 0]]}
    assert fgd_levels.small_groups(leaves[:3]) == groups[most]
    there = run()
    assert all(float(parts[0]) > 0 for parts in here.values()) and here.keys() == there.keys()
    for part, expected in here.items():
        for ours, theirs in zip(there[part], expected, strict=True):
            scale = max(float(theirs.abs().max()), 0.03)  # levels side by side leave rounding in each other's gradients
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=3e-6 * scale, err_msg=part)


@pytest.mark.parametrize("cpu", [True, False])
def test_what_is_not_finite_at_a_level_of_fgd_is_not_for_that_at_another(cpu, monkeypatch):
    leaves, compute = _fgd_of_levels()
    leaves[2].set_value(leaves[2] * np.nan)
    monkeypatch.setattr(kernels, "on_cpu", lambda _: cpu)
    broken = {name for name, value in compute().items() if not np.isfinite(float(value))}
    assert broken == {f"2.{part}" for part in ("fg", "bg", "attention", "relation")}


def test_a_level_of_large_values_takes_nothing_of_anothers_attention(monkeypatch):
    leaves, compute = _fgd_of_levels()
    leaves[0].set_value(leaves[0] * 400)

    def run():
        return {name: float(value) for name, value in compute().items()}

    here = run()
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    assert run() == {name: pytest.approx(value, rel=1e-3) for name, value in here.items()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_levels_of_fgd_together_compute_in_float32_whatever_comes_in(dtype, monkeypatch):
    leaves, compute = _fgd_of_levels(dtype)

    def run():
        found = compute()
        slopes = paddle.grad(paddle.add_n([*found.values()]), leaves)
        return [*found.values(), *(x.astype("float32") for x in slopes)]

    here = run()
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    for ours, theirs in zip(run(), here, strict=True):
        scale = max(float(theirs.abs().max()), 0.1)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-2, atol=1e-6 * scale)


def test_terms_of_fgd_can_be_asked_for_their_gradients_one_after_the_other():
    _, compute = _fgd()
    student, teacher = paddle.randn(SHAPE), paddle.randn(SHAPE)
    student.stop_gradient = False
    values = compute(student * 1.0, teacher)
    for name in [*values, *values]:
        (found,) = gradient(values[name], [student])
        student.clear_gradient(False)
        compute(student * 1.0, teacher)[name].backward()
        assert bool(paddle.isfinite(found).all()) and float(found.abs().max()) > 0
        np.testing.assert_allclose(found.numpy(), student.grad.numpy(), rtol=1e-4, atol=1e-7 * float(found.abs().max()))


def test_the_gradient_of_fgd_is_that_of_finite_differences():
    loss, compute = _fgd()
    student, teacher = paddle.randn(SHAPE), paddle.randn(SHAPE)
    student.stop_gradient = False
    sum(compute(student, teacher).values()).backward()
    way = paddle.randn(SHAPE)
    values = [float(sum(compute((student + step * way).detach(), teacher).values())) for step in (1e-2, -1e-2)]
    assert float((student.grad * way).sum()) == pytest.approx((values[0] - values[1]) / 2e-2, rel=2e-2)


def _standardised(x, unbiased=False, eps=1e-6, inside=False):
    """The formula as it stands; `eps` is added to the deviation, or inside of its root."""
    centred = x - x.mean(axis=[0, 2, 3], keepdim=True)
    count = x.size // x.shape[1] - int(unbiased)
    variance = centred.square().sum(axis=[0, 2, 3], keepdim=True) / count
    constant = (variance < 1e-20).astype(x.dtype)
    if inside:
        return centred / (variance + eps).sqrt()
    return centred / ((variance + constant).sqrt() - constant + eps)


@pytest.mark.parametrize("size", [1, 42 * 4, None])
@pytest.mark.parametrize(
    "ours, slow",
    [
        (pkd_standardise, _standardised),
        (lambda x: pkd_standardise(x, unbiased=True), lambda x: _standardised(x, unbiased=True)),
        (batch_standardise, lambda x: _standardised(x, eps=1e-5, inside=True)),
    ],
)
def test_standardised_maps_have_the_values_and_gradients_of_their_formula(ours, slow, size, monkeypatch):
    x, weight = (paddle.randn(SHAPE).astype("float64") * 3 + 1 for _ in range(2))
    x[:, 4] = 2.0
    x.stop_gradient = False
    if size:
        _cut(monkeypatch, size)
    (expected,) = paddle.grad((slow(x) * weight).sum(), [x])
    (found,) = paddle.grad((ours(x) * weight).sum(), [x])
    np.testing.assert_allclose(ours(x).numpy(), slow(x).numpy(), rtol=1e-9, atol=1e-9)
    live = [c for c in range(SHAPE[1]) if c != 4]
    np.testing.assert_allclose(found.numpy()[:, live], expected.numpy()[:, live], rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(found.numpy()[:, 4], expected.numpy()[:, 4], rtol=1e-6)


def test_a_constant_channel_is_zero_without_rounding_when_standardised():
    x = paddle.full([2, 3, 40, 40], 1000.1)
    for standardise in (pkd_standardise, batch_standardise):
        assert float(standardise(x).abs().max()) == 0


@pytest.mark.parametrize("unbiased", [False, True])
def test_pkd_is_the_mean_of_the_standardised_maps_differences(unbiased):
    """Value and gradient of the formula as it stands, in float64, also of a constant channel."""
    student, teacher = (paddle.randn(SHAPE).astype("float64") * 3 + 1 for _ in range(2))
    student[:, 4] = 2.0
    student.stop_gradient = False
    gap = _standardised(student, unbiased) - _standardised(teacher, unbiased)
    expected = gap.square().mean() / 2
    (slope,) = paddle.grad(expected, [student])
    found = pkd(student, teacher, unbiased=unbiased)
    found.backward()
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    live = [c for c in range(SHAPE[1]) if c != 4]
    np.testing.assert_allclose(student.grad.numpy()[:, live], slope.numpy()[:, live], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(student.grad.numpy()[:, 4], slope.numpy()[:, 4], rtol=1e-6)


def test_pkd_of_large_maps_is_exact():
    """Paddle's own mean over this many values is off by a thousandth of this."""
    student, teacher = paddle.randn([2, 64, 100, 168]) * 3 + 1, paddle.randn([2, 64, 100, 168])
    sides = [x.numpy().astype("float64") for x in (student, teacher)]
    axes = {"axis": (0, 2, 3), "keepdims": True}
    ours, theirs = ((x - x.mean(**axes)) / (x.std(**axes) + 1e-6) for x in sides)
    assert float(pkd(student, teacher)) == pytest.approx(((ours - theirs) ** 2).mean() / 2, rel=1e-6)


def _boxes():
    """Of two images, in which some overlap, two are the same and one row is no box."""
    first = [[4.0, 6.0, 40.0, 37.0], [10.0, 2.0, 62.0, 46.0], [10.0, 2.0, 62.0, 46.0], [0.0, 0.0, 64.0, 48.0]]
    boxes = paddle.to_tensor([first, [[x / 2 for x in box] for box in reversed(first)]])
    return boxes, paddle.to_tensor([[1.0, 1, 1, 1], [1, 0, 1, 1]])


def _regions():
    sizes = [(6, 8), (3, 4)]
    return atss_regions(square_anchors(sizes, (8, 16), 4.0, 0.5), [48, 12], *_boxes())


def _masks():
    return box_masks(*_boxes(), paddle.to_tensor([[48.0, 64.0]]), (6, 8))


@pytest.mark.parametrize("compute", [_regions, _masks])
@pytest.mark.parametrize("rows", [1, 3])
def test_boxes_in_pieces_give_what_all_boxes_give(compute, rows, monkeypatch):
    whole = [x.numpy() for x in compute()]
    _cut(monkeypatch, rows * {_regions: 60, _masks: 48}[compute])
    assert all(len(np.unique(x)) > 1 for x in whole)
    for ours, expected in zip(compute(), whole, strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("compute", [_regions, _masks])
def test_boxes_on_another_device_are_broadcast_and_give_the_same(compute, monkeypatch):
    here = [x.numpy() for x in compute()]
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    for ours, expected in zip(compute(), here, strict=True):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6)


def test_masks_of_several_levels_are_those_of_each(monkeypatch):
    """Also where a corner lies on the border of a cell, after scaling a number that is rounded."""
    boxes, valid = _boxes()
    boxes = paddle.concat([boxes, paddle.to_tensor([[[12.0, 9.0, 36.0, 45.0]] * 2] * 2) * 1.7], axis=1)
    valid = paddle.concat([valid, paddle.ones([2, 2])], axis=1)
    frame, sizes = paddle.to_tensor([[48.0, 64.0], [48.0 * 1.7, 60.0 * 1.7]]), [(12, 15), (7, 49), (3, 4), (1, 1)]
    here = [box_masks(boxes, valid, frame, size) for size in sizes]
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    for found, expected, size in zip(masks_of_levels(boxes, valid, frame, sizes), here, sizes, strict=True):
        np.testing.assert_allclose(found.numpy(), paddle.stack(expected, axis=1).flatten(2).numpy(), rtol=1e-6)
        assert found.shape[2] == size[0] * size[1]


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("temps", [(10.0, 10.0), (10.0, 4.0)])
def test_positions_that_do_not_count_need_not_be_computed(share, temps, monkeypatch):
    maps = [[paddle.randn([2, channels, 4, 5]) for channels in (3, 16)] for _ in range(2)]
    positive, region = ((paddle.rand([2, 20]) < share).astype("float32") for _ in range(2))
    region = region * paddle.rand([2, 20])

    def run():
        for x in maps[0]:
            x.stop_gradient = False
            x.clear_gradient(False)
        terms = ld_parts(*maps, positive, paddle.ones([2, 20]), region, *temps)
        functools.reduce(paddle.add, terms.values()).backward()
        return [*terms.values(), *(x.grad for x in maps[0])]

    picked = [x.numpy() for x in run()]
    monkeypatch.setattr(kernels, "on_cpu", lambda _: False)
    assert kernels.where_wanted(positive) is None
    for ours, everything in zip(picked, run(), strict=True):
        np.testing.assert_allclose(ours, everything.numpy(), rtol=1e-5, atol=1e-7)
