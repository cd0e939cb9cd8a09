"""A term's weight over time, and what is not computed while it is zero."""

import os

import paddle
import pytest

from ppkd.build import build_model
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.plan import Plan, TermSpec, schedule_of
from ppkd.recipe.schedules import Schedule
from ppkd.training.trainer import Trainer
from tests.conftest import training_batch
from tests.helpers_training import FOUR, QUICK, STRONG, count_calls, differing, families


def test_factor_is_one_from_start_until_before_stop():
    assert [Schedule(1, 3).factor(epoch) for epoch in range(5)] == [0, 1, 1, 0, 0]
    assert [Schedule(stop=2).factor(epoch) for epoch in range(4)] == [1, 1, 0, 0]
    assert [Schedule(start=2).factor(epoch) for epoch in range(4)] == [0, 0, 1, 1]
    assert [Schedule().factor(epoch) for epoch in (0, 10**6)] == [1, 1]
    assert [Schedule(2, 2).factor(epoch) for epoch in range(4)] == [0, 0, 0, 0]


def factors(**options):
    return [round(Schedule(**options).factor(epoch), 4) for epoch in range(6)]


def test_a_decay_ends_with_the_run_or_where_the_term_does():
    assert factors(decay="linear", final=0.0, epochs=6) == [1, 0.8, 0.6, 0.4, 0.2, 0]
    assert factors(decay="linear", final=0.2, epochs=5) == [1, 0.8, 0.6, 0.4, 0.2, 0.2]
    assert factors(decay="linear", final=0.0, stop=3, epochs=6) == [1, 0.5, 0, 0, 0, 0]
    cosine = [1.0, 0.8682, 0.55, 0.2318, 0.1, 0.1]
    assert factors(decay="cosine", final=0.1, epochs=5) == cosine  # 0.1 + 0.9 (1 + cos(pi t / 4)) / 2
    assert factors(start=1, decay="cosine", final=0.1, epochs=6) == [0, *cosine[:5]]


def test_a_warmup_comes_before_the_decay():
    assert factors(warmup=2) == [0.3333, 0.6667, 1, 1, 1, 1]
    assert factors(start=1, warmup=1, decay="linear", final=0.5, epochs=5) == [0, 0.5, 1, 0.75, 0.5, 0.5]


def test_a_schedule_is_over_from_its_stop_on():
    assert [Schedule(1, 3).over(epoch) for epoch in range(5)] == [False, False, False, True, True]
    assert not Schedule(decay="linear", final=0.0, epochs=2).over(100), "a weight of 0 may be one of a decay"


def test_plan_reads_decay_and_warmup():
    options = {"decay": "cosine", "final_weight": 0.1, "warmup_epochs": 2, "start_epoch": 1}
    spec = MethodSpec("M", options=options, epochs=12)
    terms = [TermSpec("a", "neck", "neck", {"name": "fgd"})]
    assert Plan.of(terms, spec).terms[0].schedule == Schedule(1, None, "cosine", 0.1, 2, 12)
    assert Plan.of(terms, MethodSpec("M", options={"decay": "linear"}, epochs=3)).terms[0].schedule.final == 0.0


@pytest.mark.parametrize("share, epochs, epoch", [("33%", 96, 32), ("50 %", 5, 2), ("0.1%", 7, 1), ("100%", 3, 3)])
def test_an_epoch_may_be_a_share_of_the_run(share, epochs, epoch):
    terms = [TermSpec("a", "neck", "neck", {"name": "fgd"})]
    made = Plan.of(terms, MethodSpec("M", options={"stop_epoch": share, "warmup_epochs": share}, epochs=epochs))
    assert (made.terms[0].schedule.stop, made.terms[0].schedule.warmup) == (epoch, epoch)
    with pytest.raises(UserError, match="distill.stop_epoch: .*% of how many epochs"):
        Plan.of(terms, MethodSpec("M", options={"stop_epoch": share}, file="x.yml"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"decay": "cosin"}, "distill.decay has to be one of constant, linear, cosine; found 'cosin'"),
        ({"decay": "linear", "final_weight": 2}, "distill.final_weight has to be a factor from 0 to 1"),
        ({"final_weight": 0.1}, "distill.final_weight needs distill.decay"),
        ({"warmup_epochs": 0.5}, "distill.warmup_epochs has to be an epoch number"),
    ],
)
def test_plan_refuses_a_wrong_decay(options, message):
    with pytest.raises(UserError, match=message):
        Plan.of([], MethodSpec("M", options=options, file="x.yml"))


def test_the_runs_epochs_reach_the_schedule(recipe):
    loaded = recipe(QUICK, overrides=["distill.decay=linear", "epoch=3"])
    model = build_model(loaded)
    assert [model.terms[0].weight(epoch) for epoch in range(3)] == [1, 0.5, 0]


def test_plan_gives_every_term_the_schedule_and_may_refuse_to_inherit():
    terms = [TermSpec("a", "neck", "neck", {"name": "fgd"}), TermSpec("b", "neck", "neck", {"name": "fgd"})]

    def of(inherit=False, **options):
        return Plan.of(terms, MethodSpec("M", options=options, file="x.yml"), inherit)

    assert [term.schedule for term in of(start_epoch=1, stop_epoch=4).terms] == [Schedule(1, 4)] * 2
    assert of(inherit=True).inherit == ("neck", "head")
    assert of().inherit == ()
    assert Plan.of(terms, MethodSpec("M", options={"inherit": False}), inherit=True).inherit == ()
    assert Plan.of(terms, MethodSpec("M", options={"inherit": True})).inherit == ("neck", "head")
    assert of().terms[0].schedule == Schedule()


@pytest.mark.parametrize(
    "start, stop, epochs, fits",
    [
        (3, 2, 9, False), (3, 3, 9, False), (3, 4, 9, True), ("50%", "33%", 9, False), (5, "33%", 9, False),
        ("33%", "66%", 1, True), (3, 0, 9, True), (3, None, 2, True),
    ],
)  # fmt: skip
def test_terms_end_after_they_have_begun(start, stop, epochs, fits):
    """Or the teacher is held and teaches nothing, as where a term's own beginning meets the end that all have."""
    options = {"start_epoch": start, "stop_epoch": stop}
    if fits:
        assert schedule_of(options, epochs, "x.yml: distill").start
    else:
        with pytest.raises(UserError, match=rf"x\.yml: distill\.stop_epoch has .* above start_epoch, {start}.* {stop}"):
            schedule_of(options, epochs, "x.yml: distill")


@pytest.mark.parametrize(
    "options",
    [
        {"start_epoch": -1}, {"start_epoch": 1.5}, {"start_epoch": True}, {"stop_epoch": "two"}, {"inherit": "maybe"},
        {"stop_epoch": "0%"}, {"stop_epoch": "101%"}, {"warmup_epochs": "a third"}, {"start_epoch": "5% of gradient"},
    ],
)  # fmt: skip
def test_plan_refuses_what_is_no_epoch(options):
    (key,) = options
    with pytest.raises(UserError, match=rf"x\.yml: distill\.{key}"):
        Plan.of([], MethodSpec("M", options=options, file="x.yml"))


@families
def test_teacher_runs_only_in_epochs_with_a_term(family, recipe):
    loaded = recipe(family, overrides=["distill.start_epoch=1", "distill.stop_epoch=2"])
    model, batch = build_model(loaded), training_batch(loaded)
    calls = count_calls(model.teachers[TEACHER].backbone)
    seen = []
    for model.epoch in range(3):
        losses = model(dict(batch))
        seen.append((len(calls), any(key.startswith("fgd.") for key in losses)))
    assert seen == [(0, False), (1, True), (1, False)]


@pytest.mark.parametrize("limits", ["start_epoch=1", "stop_epoch=1"])
def test_resumed_equals_uninterrupted_where_terms_begin_or_end(limits, recipe, tmp_path):
    def run(name, steps=None, resume=None):
        loaded = recipe(QUICK, overrides=[*STRONG, f"distill.{limits}", f"save_dir={tmp_path / name}"])
        with Trainer.open(loaded, resume=resume, max_steps=steps) as trainer:
            calls = count_calls(trainer.distill.teachers[TEACHER].backbone)
            trainer.run()
        return len(calls), os.path.join(loaded.output_dir, "model_final")

    (whole, expected), (first, half) = run("whole"), run("first", steps=3)
    second, found = run("second", resume=half)
    assert (whole, first, second) == ((3, 0, 3) if limits.startswith("start") else (3, 3, 0))
    assert differing(paddle.load(found + ".pdparams"), paddle.load(expected + ".pdparams")) == []
    states = [paddle.load(path + ".resume") for path in (found, expected)]
    for key in ("student", "terms"):
        assert differing(states[0][key], states[1][key]) == []


def test_terms_that_are_not_on_yet_do_not_move(recipe):
    # Weight decay would move whatever has a gradient, and be it zero.
    with Trainer.open(recipe(QUICK, overrides=[FOUR, "distill.start_epoch=5"]), max_steps=2) as trainer:
        before = {name: value.clone() for name, value in trainer.distillation.state_dict().items()}
        trainer.run()
    assert differing(trainer.distillation.state_dict(), before) == []
