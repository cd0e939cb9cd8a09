"""A term's weight over time, and what is not computed while it is zero."""

import os

import paddle
import pytest

from ppkd.build import build_model
from ppkd.errors import UserError
from ppkd.model import TEACHER
from ppkd.recipe import MethodSpec
from ppkd.schedules import Schedule
from ppkd.terms import Plan, TermSpec
from ppkd.trainer import Trainer
from tests.conftest import training_batch
from tests.helpers_training import FOUR, QUICK, STRONG, count_calls, differing, families


def test_factor_is_one_from_start_until_before_stop():
    assert [Schedule(1, 3).factor(epoch) for epoch in range(5)] == [0, 1, 1, 0, 0]
    assert [Schedule(stop=2).factor(epoch) for epoch in range(4)] == [1, 1, 0, 0]
    assert [Schedule(start=2).factor(epoch) for epoch in range(4)] == [0, 0, 1, 1]
    assert [Schedule().factor(epoch) for epoch in (0, 10**6)] == [1, 1]
    assert [Schedule(2, 2).factor(epoch) for epoch in range(4)] == [0, 0, 0, 0]


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
    "options",
    [{"start_epoch": -1}, {"start_epoch": 1.5}, {"start_epoch": True}, {"stop_epoch": "two"}, {"inherit": "maybe"}],
)
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
    def run(name, *overrides, resume=None):
        loaded = recipe(QUICK, overrides=[*STRONG, f"distill.{limits}", f"save_dir={tmp_path / name}", *overrides])
        with Trainer.open(loaded, resume=resume) as trainer:
            calls = count_calls(trainer.distill.teachers[TEACHER].backbone)
            trainer.run()
        return len(calls), os.path.join(loaded.output_dir, "model_final")

    (whole, expected), (first, half) = run("whole"), run("first", "epoch=1")
    second, found = run("second", resume=half)
    assert (whole, first, second) == ((3, 0, 3) if limits.startswith("start") else (3, 3, 0))
    assert differing(paddle.load(found + ".pdparams"), paddle.load(expected + ".pdparams")) == []
    states = [paddle.load(path + ".resume") for path in (found, expected)]
    for key in ("student", "terms"):
        assert differing(states[0][key], states[1][key]) == []


def test_terms_that_are_not_on_yet_do_not_move(recipe):
    # Weight decay would move whatever has a gradient, and be it zero.
    with Trainer.open(recipe(QUICK, overrides=[FOUR, "distill.start_epoch=5"]), max_steps=2) as trainer:
        before = {name: value.clone() for name, value in trainer.terms.state_dict().items()}
        trainer.run()
    assert differing(trainer.terms.state_dict(), before) == []
