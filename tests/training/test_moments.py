"""Moments apart: under Adam either loss moves the weights as it would alone, the distillation by its share of that."""

import json
import os
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L2Decay
from paddle.utils import unique_name

from ppkd.errors import UserError
from ppkd.recipe.parting import Parting, parting_of
from ppkd.training.precision import Precision
from ppkd.training.standing import Standing
from ppkd.training.update import Update
from tests.helpers_training import FOUR, QUICK, differing, fit

PLAIN = Precision({}, wanted=False)
RATE = 0.01


class Distilled:
    """Stands for a DistillModel: its student is one layer, and what it trains beside that another."""

    def __init__(self, parting, student, strength=1.0):
        self.parting, self.student, self.strength = parting, student, strength

    def part(self, losses):
        return losses.get("term")


def trained(parting, batches, kind="AdamW", strength=None, norm=None, watched=False, regularizer=None, **options):
    """Take steps with losses that are linear in a student's weights and in an adapter's.

    Args:
        batches: of each step ``(detection's gradient, distillation's)`` of a weight of the student, one number each;
            the adapter gets ten times the distillation's.

    Returns:
        How far the student's weight and the adapter's were moved, what was measured, and the `Update`.
    """
    with unique_name.guard():
        zeros = nn.initializer.Constant(0.0)
        attribute = paddle.ParamAttr(initializer=zeros, regularizer=regularizer)
        student, adapter = (nn.Linear(1, 1, weight_attr=attribute, bias_attr=False) for _ in "ab")
    parameters = [student.weight, adapter.weight]
    rate = paddle.optimizer.lr.LambdaDecay(RATE, lambda step: 1.0)
    clip = nn.ClipGradByGlobalNorm(norm) if norm else None
    optimizer = getattr(paddle.optimizer, kind)(rate, parameters=parameters, grad_clip=clip, **options)
    distilled = parting and Distilled(parting, student)
    update = Update(optimizer, rate, parameters, distilled, PLAIN)
    found = []
    for (own, theirs), now in zip(batches, strength or [1.0] * len(batches)):
        if distilled:
            distilled.strength = now
        term = (student.weight.sum() + 10 * adapter.weight.sum()) * theirs
        losses = {"own": student.weight.sum() * own, "term": term}
        update.begin(watched)
        update.keep(losses, 1)
        sum(losses.values()).backward()
        update.take(1.0)
        update.optimizing.end()
        found.append(update.lengths.take())
    return float(student.weight) / RATE, float(adapter.weight) / RATE, found, update


def gradients(own, theirs, steps=12):
    """Batches whose gradients are not quite constant."""
    wave = np.cos(np.arange(steps)) + 2
    return [(own * w, theirs * w) for w in wave]


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_student_moves_as_by_either_alone_the_teachers_share_counted(kind):
    apart = Parting(share=0.25)
    alone, *_ = trained(None, gradients(0.01, 0), kind)
    for strong in (0.5, 50.0):
        moved, adapter, *_ = trained(apart, gradients(0.01, -strong), kind)
        taught, its, *_ = trained(None, gradients(0, -strong), kind)
        assert moved == pytest.approx(alone + 0.25 * taught, rel=1e-3), "however strong the terms are"
        assert adapter == pytest.approx(its, rel=1e-4), "what is beside the student learns as before"
        together, *_ = trained(None, gradients(0.01, -strong), kind)
        assert together == pytest.approx(taught, rel=0.05), "in one moment the stronger one decides alone"


def test_a_schedule_is_a_factor_on_the_share():
    """And not on what the moments are of, which would go on from the former size."""
    steps = gradients(0, -3.0)
    whole, *_ = trained(Parting(share=0.2), steps, "Adam")
    first, *_ = trained(Parting(share=0.2), steps[:6], "Adam")
    weaker = [*steps[:6], *((0, 0.1 * theirs) for _, theirs in steps[6:])]
    moved, *_ = trained(Parting(share=0.2), weaker, "Adam", [1.0] * 6 + [0.1] * 6)
    assert moved == pytest.approx(first + 0.1 * (whole - first), rel=1e-4) and whole > first > 0


def test_what_a_weight_says_of_its_own_decay_is_the_optimizers_as_well():
    """As ppdet's norms do, and, of Adam, all of ``param_groups``: the distillation's step would decay it once more."""
    steps = gradients(-1.0, 0.0)
    apart, *_ = trained(Parting(share=1.0), steps, "Adam", regularizer=L2Decay(1.0))
    alone, *_ = trained(None, steps, "Adam", regularizer=L2Decay(1.0))
    free, *_ = trained(None, steps, "Adam")
    assert apart == pytest.approx(alone, rel=1e-5) and alone < 0.999 * free


def test_the_optimizer_alone_decays_the_weights_and_parts_are_clipped_apart():
    options = {"weight_decay": 0.5}
    both, *_ = trained(Parting(share=1.0), gradients(-1.0, -1.0), "AdamW", **options)
    free, *_ = trained(Parting(share=1.0), gradients(-1.0, -1.0), "AdamW", weight_decay=0.0)
    once, *_ = trained(None, gradients(-1.0, 0.0), "AdamW", **options)
    assert free - both == pytest.approx(2 * (free / 2 - once), rel=0.02)
    # Where one step is larger than the others, clipping shows in the moments.
    batches = [(1.0, 1000.0), (1.0, 1.0), (1.0, 1.0)]
    clipped, *_ = trained(Parting(share=0.5), batches, norm=2.0)
    own, *_ = trained(None, [(own, 0) for own, _ in batches])
    theirs, *_ = trained(None, [(0, theirs * min(1, 2 / (theirs * 101**0.5))) for _, theirs in batches])
    assert clipped == pytest.approx(own + 0.5 * theirs, rel=1e-3)


def test_how_far_either_loss_moves_the_weights():
    """As by itself if the moments are apart; by a fraction beside strong terms, and for long after their end."""
    batches = gradients(0.01, 1.0, 40) + gradients(0.01, 0.0, 40)
    _, _, apart, _ = trained(Parting(share=0.25), batches, watched=True)
    _, _, together, _ = trained(Parting(), batches, watched=True)
    assert apart[20]["detection.update"] == pytest.approx(1, rel=0.6)
    assert apart[20]["distillation.update"] == pytest.approx(0.25 * apart[20]["detection.update"], rel=1e-3)
    assert together[20]["detection.update"] == pytest.approx(0.01 * together[20]["distillation.update"], rel=1e-3)
    assert together[20]["distillation.update"] == pytest.approx(apart[20]["detection.update"], rel=0.02)
    assert together[-1]["detection.update"] < 0.03 < 0.5 < apart[-1]["detection.update"]
    _, _, plain, _ = trained(None, gradients(0.01, 0.0, 21), watched=True)
    # Of both weights, of which the adapter's stands still.
    assert plain[20]["detection.update"] == pytest.approx(apart[20]["detection.update"] / 2**0.5, rel=1e-3)
    _, _, clipped, _ = trained(Parting(), [(0.0, 1.0), (0.0, 1000.0)], norm=1.0, watched=True)
    assert clipped[1]["distillation.update"] == pytest.approx(1, rel=0.1), "of the gradient as it was clipped"
    assert trained(Parting(), batches[:2])[2] == [{}, {}], "not asked for"
    assert trained(Parting(), batches[:2], kind="Momentum", watched=True)[2] == [{}, {}], "has no such mean"


def test_gradients_are_measured_a_hundred_and_fifty_steps_apart_at_least():
    def places(batches, accumulate=1):
        found = [Standing(batches, accumulate, epoch, batch) for epoch in range(9) for batch in range(batches)]
        return [(standing.epoch, standing.batch) for standing in found if standing.watched]

    assert places(36) == [(0, 0), (5, 0)]
    assert places(150) == [(epoch, 0) for epoch in range(9)]
    # All batches of the step; 50 of them are the shorter epoch's.
    assert places(99, 2) == [(epoch, batch) for epoch in (0, 3, 6) for batch in (0, 1)]


def test_a_run_with_moments_apart_is_resumed_to_the_bit_and_recorded(recipe, tmp_path):
    states = []
    for first in (None, 1):
        given = [FOUR, "epoch=1", "distill.moments=apart", "distill.update_share=50%", f"save_dir={tmp_path}/{first}"]
        loaded = recipe(QUICK, overrides=given)
        optimizer = {"type": "AdamW", "weight_decay": 0.01}
        loaded.student["OptimizerBuilder"] = {"clip_grad_by_norm": 2, "regularizer": None, "optimizer": optimizer}
        if first:
            fit(loaded, max_steps=first)
        states.append(fit(loaded, resume="auto" if first else None).state())
        del states[-1]["ema"]["epoch"]  # counts snapshots
    assert differing(*states) == []
    assert any(name.endswith("_moment2_0") for name in states[0]["moments"])
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        (found,) = [record for record in map(json.loads, file) if record["kind"] == "gradients"]
    # In its first step a weight moves by the rate, if it has a gradient: with a new head few have the detection loss's.
    assert 0 < found["detection.update"] < 1 and 0 < found["distillation.update"] < 0.5


def test_its_moments_are_forgotten_too():
    for squares, kept in ((True, 0.0), (False, 0.1)):
        *_, update = trained(Parting(share=0.1), [(0.0, 10.0)])
        update.forget(squares)
        state = update.moments.state()
        (second,) = [float(value) for name, value in state.items() if name.endswith("_moment2_0")]
        (first,) = [float(value) for name, value in state.items() if name.endswith("_moment1_0")]
        assert first == 0 and second == pytest.approx(kept, rel=1e-3)


def test_what_cannot_have_moments_apart():
    def check(kind="Adam", **more):
        layer = nn.Linear(1, 1)
        optimizer = getattr(paddle.optimizer, kind)(0.1, parameters=layer.parameters())
        precision = Precision({}, wanted=False)
        for name, value in more.items():
            setattr(precision, name, value)
        Update(optimizer, 0.1, layer.parameters(), Distilled(Parting(share=0.1), layer), precision)

    for kind in ("SGD", "Momentum"):
        with pytest.raises(UserError, match=f"is for Adam and AdamW.*; {kind} does not"):
            check(kind)
    with pytest.raises(UserError, match="not for amp_level O2"):
        check(on=True, level="O2")
    with pytest.raises(UserError, match="not for float16"):
        check(scaler=SimpleNamespace(is_enable=lambda: True))


def test_keys_of_what_is_apart():
    for options in ({}, {"clip": "apart"}, {"moments": "apart", "update_share": "20%"}):
        assert parting_of(options, "f: distill").keys == options
    assert parting_of({"moments": "apart", "update_share": 0.2}, "f").share == 0.2
    assert parting_of({"moments": "apart"}, "f").keys["update_share"] == "10%"
    with pytest.raises(UserError, match="f: distill.moments has to be one of together, apart; found 'own'"):
        parting_of({"moments": "own"}, "f: distill")
    with pytest.raises(UserError, match="f: distill.update_share needs distill.moments: apart"):
        parting_of({"update_share": 0.2}, "f: distill")
    for wrong in ("a lot", 0, "0%", -0.1, 20, "1001%", True, None, float("inf")):
        with pytest.raises(UserError, match="update_share has to be a share above 0"):
            parting_of({"moments": "apart", "update_share": wrong}, "f: distill")
