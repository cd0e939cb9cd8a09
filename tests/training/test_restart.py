"""Restarts and hand-overs: what is forgotten when terms end, and that a resumed run forgets the same."""

import json
import os
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.utils import unique_name

from ppkd.engine.terms import Term
from ppkd.errors import UserError
from ppkd.recipe.hand_over import HandOver, hand_over_of, restarts_of
from ppkd.recipe.plan import TermSpec
from ppkd.recipe.schedules import Schedule
from ppkd.recipe.targets import Target
from ppkd.training.averaging import Averaging
from ppkd.training.optimizing import Optimizing
from ppkd.training.precision import Precision
from ppkd.training.restart import Restart
from ppkd.training.trainer import Trainer
from tests.helpers_training import QUICK, differing, fit

PLAIN = Precision({}, wanted=False)
OPTIMIZERS = {
    "AdamW": {"beta1": 0.7, "beta2": 0.9},
    "Adam": {},
    "Momentum": {"momentum": 0.8},
    "RMSProp": {"momentum": 0.5, "centered": True},
    "Lamb": {},
    "SGD": {},
}


def made(name="AdamW", **options):
    """A layer, its `Optimizing`, and a function that takes steps with given gradients."""
    paddle.seed(3)
    with unique_name.guard():
        layer = nn.Linear(3, 2)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(0.1, 100)  # which makes each of its rates of the one before
    options = {**OPTIMIZERS[name], **options}
    optimizer = getattr(paddle.optimizer, name)(learning_rate=rate, parameters=layer.parameters(), **options)
    optimizing = Optimizing(optimizer, rate)

    def step(*gradients, factor=1.0):
        for gradient in gradients:
            (layer.weight * gradient).sum().backward()
            optimizing.step(PLAIN, factor)
            optimizing.end()

    return layer, optimizing, step


def moves(layer, step, gradient):
    before = layer.weight.numpy().copy()
    step(gradient)
    return layer.weight.numpy() - before


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_forgot_is_a_new_one(name, resumed):
    """Also where it has nothing but what it was resumed with."""
    layer, optimizing, step = made(name)
    step(100.0, -50.0)
    if resumed:
        state = optimizing.state()
        tensors = layer.state_dict()
        layer, optimizing, step = made(name)
        layer.set_state_dict(tensors)
        optimizing.restore(state)
    optimizing.forget(squares=True)
    fresh_layer, fresh, fresh_step = made(name)
    fresh_layer.set_state_dict(layer.state_dict())
    fresh.rate.set_state_dict(optimizing.rate.state_dict())
    for gradient in (1.0, 2.0):
        step(gradient)
        fresh_step(gradient)
        np.testing.assert_array_equal(layer.weight.numpy(), fresh_layer.weight.numpy())


def test_forgetting_the_mean_alone_keeps_the_squares():
    layer, optimizing, step = made("AdamW", weight_decay=0.0)
    step(*[100.0] * 20)
    optimizing.forget(squares=False)
    # Bias-corrected, the mean is the gradient itself, 1; the squares remember 100.
    moved = -moves(layer, step, 1.0)
    assert moved.min() > 0 and moved.max() < 0.1 * 0.05


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_has_its_first_gradient_after_forgetting_is_moved_too(name):
    """A connector of a term that begins later: Paddle makes what it keeps of it then, beside what was forgotten."""
    layer, optimizing, step = made(name)
    step(0.3, 2.0)
    optimizing.forget(squares=True)
    layer.bias.sum().backward()
    before = layer.bias.numpy().copy()
    step(1.0)
    assert np.abs(layer.bias.numpy() - before).min() > 0


def test_an_optimizer_that_is_not_known_is_refused_before_any_training(recipe):
    loaded = recipe(QUICK, distil=False, overrides=["restart_epochs=1"])
    loaded.student["OptimizerBuilder"]["optimizer"] = {"type": "Adagrad"}
    with pytest.raises(UserError, match=r"what Adagrad keeps .* \(restart_epochs, distill.hand_over\)"):
        fit(loaded)


def test_the_learning_rate_of_one_step_is_scaled_and_the_schedule_goes_on():
    layer, optimizing, step = made("SGD")
    np.testing.assert_allclose(moves(layer, lambda g: step(g, factor=0.25), 1.0), -0.1 * 0.25, rtol=1e-5)
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.1, 100)
    schedule.step()
    assert optimizing.rate() == schedule() != 0.1
    np.testing.assert_allclose(moves(layer, step, 1.0), -schedule(), rtol=1e-5)


def test_the_schedule_that_is_kept_goes_on_where_no_step_was_taken_since_a_run_was_resumed():
    """All of them skipped; or, of moments apart, which have the same schedule, none with a term that is on."""
    _, optimizing, step = made()
    step(1.0, 2.0)
    state = optimizing.state()
    for forgets in (False, True):
        _, optimizing, _ = made()
        optimizing.restore(state)
        optimizing.end()
        optimizing.end()
        if forgets:
            optimizing.forget(squares=True)
        assert optimizing.rate.last_epoch == 4
        _, again, _ = made()
        again.restore(optimizing.state())
        assert again.rate.last_epoch == 4 and again.rate() == optimizing.rate()


def average_of(layer):
    return Averaging(layer, {"use_ema": True, "ema_decay": 0.5}, PLAIN)


def test_training_goes_on_from_the_average_which_begins_anew():
    layer = nn.Linear(1, 1)
    averaging = average_of(layer)
    for value in (1.0, 2.0, 6.0):
        layer.weight.set_value(paddle.full([1, 1], value))
        averaging.update()
    with averaging.applied():
        expected = float(layer.weight)
    assert float(layer.weight) == 6 and 1 < expected < 6
    averaging.begin_anew()
    assert float(layer.weight) == expected
    layer.weight.set_value(paddle.full([1, 1], 10.0))
    averaging.update()
    with averaging.applied():
        assert float(layer.weight) == pytest.approx(10, rel=1e-5), "the former average is in it"


def test_before_its_first_step_an_average_is_none():
    """Its tensors are zeros then: a checkpoint after a restart whose first step was skipped would hold them."""
    layer = nn.Linear(2, 2)
    averaging, before = average_of(layer), layer.weight.numpy().copy()
    with averaging.applied():
        np.testing.assert_array_equal(layer.weight.numpy(), before)
    averaging.begin_anew()
    np.testing.assert_array_equal(layer.weight.numpy(), before)


# When


def turns(schedule, epochs=8):
    return [epoch for epoch in range(epochs) if schedule.turns(epoch)]


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (Schedule(), []),
        (Schedule(stop=3), [3]),
        (Schedule(start=2), [2]),
        (Schedule(start=2, stop=5), [2, 5]),
        (Schedule(stop=5, decay="cosine", final=0.0), [5]),
        (Schedule(decay="linear", final=0.0, epochs=8), []),
        (Schedule(stop=2, decay="linear", final=0.0), [1, 2]),
        (Schedule(warmup=3), []),
        (Schedule(start=1, warmup=3), []),
    ],
)
def test_terms_turn_where_they_change_by_half_or_end(schedule, expected):
    assert turns(schedule) == expected


@pytest.mark.parametrize(
    "magnitude, stop, expected",
    [
        ({0: "11% of gradient", 3: "3% of gradient"}, None, [3]),
        ({0: "3%", 2: "4%", 4: "11%"}, None, [4]),
        ({0: 0.5, 3: 0.3}, None, []),
        ({0: 0.5, 3: 0.3}, 6, [6]),
        ({0: 0.5, 3: 0.1, 5: 0.05}, 5, [3, 5]),
    ],
)
def test_terms_turn_where_their_magnitude_changes_by_half(magnitude, stop, expected):
    target, schedule = Target.parse_later(magnitude), Schedule(stop=stop)
    spec = TermSpec("a", "b", "c", {"name": "pkd"}, magnitude=target, schedule=schedule)
    term = SimpleNamespace(spec=spec, _factor=1.0)
    assert [epoch for epoch in range(8) if Term.turns(term, epoch)] == expected


def test_a_run_hands_over_where_its_terms_end_and_restarts_where_it_is_told_to(recipe, caplog):
    given = ["epoch=4", "TrainReader.batch_size=6", "distill.stop_epoch=2", "distill.hand_over=reset"]
    given += ["distill.hand_over_warmup=3", "restart_epochs=[3]", "restart_what=first_moment", "restart_warmup=1"]
    loaded = recipe(QUICK, overrides=given)
    with Trainer.open(loaded) as trainer:
        rates, step = [], trainer.optimizer.step
        trainer.optimizer.step = lambda: (rates.append(trainer.optimizer.get_lr()), step())
        trainer.run()
    assert [rate / 0.01 for rate in rates] == pytest.approx([0.5, 0.75, 1, 1, 0.25, 0.5, 0.5, 1])
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    found = [(r["epoch"], r["step"], r["terms"], r["parts"]) for r in records if r["kind"] == "restart"]
    assert found == [(2, 4, ["fgd"], ["moments", "average"]), (3, 6, [], ["first_moment"])]
    # As told after a step: of the step that comes next, by what is known then.
    told = [0.0075, 0.01, 0.01, 0.01, 0.005, 0.0075, 0.01, 0.01]
    assert [r["lr"] for r in records if r["kind"] == "train"] == pytest.approx(told)


def test_what_is_not_there_is_not_said_to_be_forgotten(caplog):
    """Without use_ema there is no average."""
    both = ("moments", "average")
    for parts, told in ((both, "moments are forgotten; steps"), (("average",), "nothing is forgotten")):
        config = {"epoch": 9, "restart_epochs": [1], "restart_what": list(parts)}
        update = SimpleNamespace(optimizing=made()[1], forget=lambda squares: None)
        standing = SimpleNamespace(epoch=1, step=4)
        record = Restart(config, None, update, Averaging(nn.Linear(1, 1), {}, PLAIN), standing).begin_epoch()
        assert record["parts"] == [part for part in parts if part != "average"]
        assert told in caplog.messages[-1] and "averaged" not in caplog.text


@pytest.mark.parametrize("steps", [2, 3])
def test_a_hand_over_is_resumed_to_the_bit(steps, recipe, tmp_path):
    """From where it comes next, and from the middle of the rising learning rate after it."""
    given = ["TrainReader.batch_size=6", "epoch=2", "distill.stop_epoch=1", "distill.hand_over=reset"]
    states = []
    for first in (None, steps):
        loaded = recipe(QUICK, overrides=[*given, f"save_dir={tmp_path}/{first}"])
        loaded.student["OptimizerBuilder"]["optimizer"] = {"type": "AdamW", "weight_decay": 0.01}
        if first:
            fit(loaded, max_steps=first)
        states.append(fit(loaded, resume="auto" if first else None).state())
        del states[-1]["ema"]["epoch"]  # counts snapshots
    assert differing(*states) == [] and states[0]["restart"] == {"step": 2, "warmup": 20}


# What files say


def test_what_is_given_becomes_what_is_forgotten():
    assert hand_over_of({}, "x") is hand_over_of({"hand_over": "none"}, "x") is None
    assert hand_over_of({"hand_over": "reset"}, "x") == HandOver(("moments", "average"), 20)
    assert hand_over_of({"hand_over": ["average", "first_moment"], "hand_over_warmup": 0}, "x") == HandOver(
        ("first_moment", "average"), 0
    )
    assert restarts_of({"restart_epochs": 8}) == ((8,), HandOver())
    assert restarts_of({"restart_epochs": [8], "restart_what": "none"}) == ((), None)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"hand_over": "rest"}, "f: distill.hand_over: 'rest' cannot be forgotten"),
        ({"hand_over": 3}, "has to be none, reset, or a list"),
        ({"hand_over": ["moments", "momentum"]}, "'momentum' cannot be forgotten; nearest: moments"),
        ({"hand_over": "reset", "hand_over_warmup": -1}, "hand_over_warmup has to be a number of steps from 0"),
        ({"hand_over_warmup": 5}, "distill.hand_over_warmup needs distill.hand_over"),
    ],
)
def test_what_cannot_be_handed_over(given, message):
    with pytest.raises(UserError, match=message):
        hand_over_of(given, "f: distill")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"restart_epochs": [0]}, "restart_epochs has to be a list of epoch numbers from 1"),
        ({"restart_epochs": "8"}, "restart_epochs has to be a list"),
        ({"restart_epochs": [2], "restart_warmup": True}, "restart_warmup has to be a number of steps"),
        ({"restart_epochs": [2], "restart_what": "ema"}, "restart_what: 'ema' cannot be forgotten"),
        ({"restart_what": "average"}, "restart_what needs restart_epochs"),
    ],
)
def test_no_restart(given, message):
    with pytest.raises(UserError, match=message):
        restarts_of(given)
