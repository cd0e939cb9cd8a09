"""A term that is computed in one batch of so many: what does not run meanwhile, and that its mean stays what it was."""

import paddle
import pytest

from ppkd.build import build_model
from ppkd.detectors.context import Clock
from ppkd.engine.model import TEACHER
from ppkd.errors import UserError
from tests.conftest import training_batch
from tests.helpers_training import QUICK, STRONG, count_calls, differing, fit, terms_of

THIRD = "distill.terms.fgd.every=3"


def test_how_often_a_term_was_computed_before_a_batch():
    ages = [Clock(epoch, batch, batches=5).since(1, every=2) for epoch in (1, 2) for batch in range(5)]
    assert ages == [0, 1, 1, 2, 2, 3, 4, 4, 5, 5]
    assert [Clock(2, batch, batches=5).since(1) for batch in range(3)] == [5, 6, 7]


def test_the_teacher_runs_in_one_batch_of_three_and_the_term_weighs_as_much_in_all(recipe):
    loaded, every = recipe(QUICK, overrides=[*STRONG, THIRD]), 3
    paddle.seed(0)
    model = build_model(loaded)
    paddle.seed(0)
    whole = build_model(recipe(QUICK, overrides=STRONG))
    batch, sums = training_batch(loaded), {id(model): 0.0, id(whole): 0.0}
    calls = count_calls(model.teachers[TEACHER].backbone)
    for each in (model, whole):
        each.batches = 7
        for number in range(7):
            each.batch = number
            paddle.seed(0)
            parts = terms_of(each(dict(batch)), each)
            assert bool(parts) == (each is whole or number % every == 0)
            assert bool(each.idle()) <= (each is model)
            sums[id(each)] += float(sum(parts.values())) if parts else 0.0
    assert len(calls) == 3
    assert sums[id(model)] == pytest.approx(sums[id(whole)], rel=1e-4)


def test_a_share_of_the_loss_is_the_share_of_all_batches(recipe):
    loaded = recipe(QUICK, overrides=[*STRONG, THIRD, "distill.terms.fgd.magnitude=30%"])
    model, batch, shares = build_model(loaded), training_batch(loaded), []
    model.batches = 6
    for model.batch in range(6):
        losses = model(dict(batch))
        terms = float(sum(terms_of(losses, model).values())) if terms_of(losses, model) else 0.0
        shares.append(terms / (float(losses["loss"]) - terms))
    assert [share > 0 for share in shares] == [True, False, False] * 2
    assert sum(shares) / 6 == pytest.approx(0.3, rel=0.05)


def test_a_run_that_was_stopped_between_two_of_its_batches_goes_on_to_the_bit(recipe, tmp_path):
    overrides = [*STRONG, "distill.terms.fgd.every=2", "epoch=2", "TrainReader.batch_size=3"]
    whole = fit(recipe(QUICK, overrides=[*overrides, f"save_dir={tmp_path / 'whole'}"]))
    parted = recipe(QUICK, overrides=[*overrides, f"save_dir={tmp_path / 'parted'}"])
    fit(parted, max_steps=5)
    trainer = fit(parted, resume="auto")
    assert differing(whole.student.state_dict(), trainer.student.state_dict()) == []
    assert differing(whole.distill.distillation.state_dict(), trainer.distill.distillation.state_dict()) == []


@pytest.mark.parametrize("value", ["0", "1.5", "often", "true", "-2"])
def test_other_numbers_are_refused(recipe, value):
    with pytest.raises(UserError, match=r"distill.terms.fgd.every has to be a whole number from 1"):
        build_model(recipe(QUICK, overrides=[f"distill.terms.fgd.every={value}"]))
