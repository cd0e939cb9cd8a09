"""Clipping: together it is Paddle's own, and apart the distillation's gradient cannot shrink the detection loss's."""

import json
import os

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.parting import Parting
from ppkd.training.clipping import Clipping
from ppkd.training.precision import Precision
from ppkd.training.update import Update
from tests.helpers_training import QUICK, differing, fit

PLAIN = Precision({}, wanted=False)


class Distilled:
    """Stands for a DistillModel whose losses are a detection loss and one term."""

    def __init__(self, clip):
        self.parting, self.student = Parting(clip == "apart"), nn.Layer()

    def part(self, losses):
        return losses.get("term")


def steps(batches, clip="apart", norm=1.0):
    """Take one step with losses that are linear in two parameters; the step, and the shares that were clipped.

    Args:
        batches: list of gradients ``(detection's, distillation's)``, each of the two parameters.
    """
    zeros = nn.initializer.Constant(0.0)
    w, adapter = (paddle.create_parameter([2], "float32", default_initializer=zeros) for _ in "ab")
    rate = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: 1.0)
    optimizer = paddle.optimizer.SGD(rate, parameters=[w, adapter], grad_clip=nn.ClipGradByGlobalNorm(norm))
    update = Update(optimizer, optimizer._learning_rate, [w, adapter], Distilled(clip), PLAIN)
    for own, theirs in batches:
        losses = {"own": (w * paddle.to_tensor(own[0])).sum() + (adapter * paddle.to_tensor(own[1])).sum()}
        if theirs is not None:
            losses["term"] = (w * paddle.to_tensor(theirs[0])).sum() + (adapter * paddle.to_tensor(theirs[1])).sum()
        update.keep(losses, 1)
        sum(losses.values()).backward()
    update.take(1.0)
    return -np.stack([w.numpy(), adapter.numpy()]), update.clipping.read()


NOTHING = [0.0, 0.0]


def test_a_strong_term_does_not_shrink_the_detection_loss():
    """Not by what it does to adapters either, which are in the common norm."""
    own, theirs = ([0.3, 0.4], NOTHING), ([0.0, 30.0], [40.0, 0.0])
    moved, clipped = steps([(own, theirs)])
    np.testing.assert_allclose(moved, [[0.3, 0.4 + 0.6], [0.8, 0.0]], rtol=1e-5)
    assert clipped == {"clipped_distillation": 1.0}
    together, clipped = steps([(own, theirs)], clip="together")
    assert np.linalg.norm(together) == pytest.approx(1) and together[0, 0] < 0.01 and clipped == {"clipped": 1.0}


def test_either_is_clipped_by_itself():
    moved, clipped = steps([(([3.0, 4.0], NOTHING), ([0.0, 0.1], NOTHING))])
    np.testing.assert_allclose(moved, [[0.6, 0.8 + 0.1], NOTHING], rtol=1e-5)
    assert clipped == {"clipped_detection": 1.0}
    assert steps([(([0.3, 0.4], NOTHING), ([0.0, 0.1], NOTHING))])[1] == {}


def test_the_batches_of_a_step_are_clipped_together():
    batches = [(([0.3, 0.0], NOTHING), ([0.0, 3.0], NOTHING)), (([0.3, 0.0], NOTHING), ([0.0, 1.0], NOTHING))]
    np.testing.assert_allclose(steps(batches)[0], [[0.6, 1.0], NOTHING], rtol=1e-5)
    # One of them had no image, or no term that is on.
    batches[1] = (([0.3, 0.0], NOTHING), None)
    np.testing.assert_allclose(steps(batches)[0], [[0.6, 1.0], NOTHING], rtol=1e-5)


def test_what_stands_in_for_a_batch_takes_part_and_counts_nothing():
    """The other ranks exchange what they keep of the distillation, and wait for this one."""
    w = paddle.create_parameter([2], "float32")
    for share in (0.5, 0.0):
        sgd = paddle.optimizer.SGD(1.0, parameters=[w], grad_clip=nn.ClipGradByGlobalNorm(1.0))
        update = Update(sgd, None, [w], Distilled("apart"), PLAIN)
        update.keep({"term": (w * paddle.to_tensor([3.0, 4.0])).sum()}, share)
        (w.sum() * 0.0).backward()
        (found,) = update._parts.take()
        assert (found.theirs.numpy() == np.multiply([3.0, 4.0], share)).all()


def test_without_any_term_it_is_paddles_own():
    own = [3.0, 4.0], [1.0, 2.0]
    assert (steps([(own, None)])[0] == steps([(own, None)], clip="together")[0]).all()


def steps_of_groups(gradients, clip, watched=False):
    """Take steps with two groups of one weight each, by AdamW; the state it ends with, what was clipped, and lengths.

    Args:
        gradients: of each step ``(detection's, distillation's)``, each of the two weights.
    """
    zeros = nn.initializer.Constant(0.0)
    w, v = (paddle.create_parameter([1], "float32", default_initializer=zeros) for _ in "ab")
    groups = [{"params": [w]}, {"params": [v], "weight_decay": 0.0}]
    rate = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: 1.0)
    optimizer = paddle.optimizer.AdamW(rate, parameters=groups, grad_clip=nn.ClipGradByGlobalNorm(1.0))
    distilled = Distilled(clip)
    distilled.student.add_parameter("w", w)
    distilled.student.add_parameter("v", v)
    update = Update(optimizer, rate, [w, v], distilled, PLAIN)
    for own, theirs in gradients:
        losses = {"own": w.sum() * own[0] + v.sum() * own[1], "term": w.sum() * theirs[0] + v.sum() * theirs[1]}
        update.begin(watched)
        update.keep(losses, 1)
        sum(losses.values()).backward()
        update.take(1.0)
        update.optimizing.end()
    means = [float(optimizer._get_accumulator("moment1", p)) / 0.1 for p in (w, v)]
    return means, update.clipping.read(), update.lengths.take()


def test_groups_of_parameters_are_clipped_apart_and_told_as_well():
    """Paddle clips each of an optimizer's ``param_groups`` by itself, and did so once more after what is apart."""
    means, clipped, _ = steps_of_groups([((0.4, 0.3), (0.0, 30.0))], "apart")
    np.testing.assert_allclose(means, [0.4, 1.3], rtol=1e-5)
    assert clipped == {"clipped_distillation": 1.0}
    means, clipped, _ = steps_of_groups([((0.4, 0.3), (0.0, 30.0))], "together")
    np.testing.assert_allclose(means, [0.4, 1.0], rtol=1e-5)
    assert clipped == {"clipped": 1.0}
    steps = [((0.4, 0.3), (0.0, 0.0)), ((0.4, 0.3), (0.0, 30.0))]
    assert steps_of_groups(steps, "together")[1] == {"clipped": 0.5}, "of the steps, not of the groups"
    # In its first step Adam moves a weight by the rate; here one of the two, and the other by 0.3 of 30.3 of it.
    (_, _, lengths) = steps_of_groups(steps[1:], "together", watched=True)
    assert lengths["detection.update"] == pytest.approx((0.5 * (1 + (0.3 / 30.3) ** 2)) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("given", [0, -1])
def test_a_norm_that_would_end_or_turn_round_all_training_is_refused(given):
    sgd = paddle.optimizer.SGD(1.0, parameters=nn.Linear(1, 1).parameters(), grad_clip=nn.ClipGradByGlobalNorm(given))
    with pytest.raises(UserError, match=f"clip_grad_by_norm has to be above 0, found {given}"):
        Clipping(sgd, None, scales=False)


def test_a_run_is_clipped_apart_and_resumed_to_the_bit(recipe, tmp_path):
    given = ["TrainReader.batch_size=2", "accumulate=2", "epoch=1", "distill.clip=apart", "distill.alpha_fgd=1"]
    given += ["OptimizerBuilder.clip_grad_by_norm=2"]
    states = []
    for first in (None, 1):
        loaded = recipe(QUICK, overrides=[*given, f"save_dir={tmp_path}/{first}"])
        if first:
            fit(loaded, max_steps=first)
        states.append(fit(loaded, resume="auto" if first else None).state())
        del states[-1]["ema"]["epoch"]  # counts snapshots
    assert differing(*states) == []
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        found = [record for record in map(json.loads, file) if record["kind"] == "train"]
    assert all(record["clipped_distillation"] == 1 and "clipped" not in record for record in found)


def test_what_cannot_be_clipped_apart():
    sgd = paddle.optimizer.SGD(1.0, parameters=nn.Linear(1, 1).parameters())
    with pytest.raises(UserError, match="needs a norm to clip by: set OptimizerBuilder.clip_grad_by_norm"):
        Clipping(sgd, Distilled("apart"), scales=False)
    sgd = paddle.optimizer.SGD(1.0, parameters=nn.Linear(1, 1).parameters(), grad_clip=nn.ClipGradByGlobalNorm(1.0))
    with pytest.raises(UserError, match="is not for float16"):
        Clipping(sgd, Distilled("apart"), scales=True)
    with pytest.raises(UserError, match="f: distill.clip has to be one of together, apart; found 'part'"):
        plan(MethodSpec("FGD", options={"clip": "part"}, file="f"))
