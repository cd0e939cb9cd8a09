"""A wanted magnitude: the term's first steps set its factor, which is kept and the same everywhere."""

import os

import paddle
import pytest

from ppkd.build import build_model
from ppkd.engine.magnitude import Magnitude
from ppkd.recipe.targets import Target
from ppkd.training.trainer import Trainer
from tests.conftest import training_batch
from tests.helpers_training import QUICK, differing, fit

TWENTY = "distill.terms.fgd.magnitude=20%"


def scalar(x):
    return paddle.to_tensor(float(x))


@pytest.mark.parametrize(
    "text, target", [(0.5, Target(0.5)), ("20%", Target(0.2, True)), (" 7.5 %", Target(0.075, True))]
)
def test_a_target_is_a_number_or_a_share(text, target):
    assert Target.parse(text) == target and Target.parse(target.text) == target


@pytest.mark.parametrize("text", [0, -1, "0%", "a lot", True, float("inf"), [1]])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match="is neither|is not above"):
        Target.parse(text)


LATER = {0: "11% of gradient every epoch", 6: "5.5% of gradient every epoch", 8: "1% of gradient every epoch"}


def test_a_later_epoch_may_have_another_share():
    target = Target.parse_later(LATER)
    assert [target.times(epoch) for epoch in (0, 5, 6, 7, 8, 99)] == pytest.approx([1, 1, 0.5, 0.5, 1 / 11, 1 / 11])
    assert Target.parse_later(target.text) == target and target.gradient and target.every_epoch
    assert str(target).startswith("11% of gradient every epoch, from epoch 7 on to 5.5% of gradient")


@pytest.mark.parametrize(
    "given, told",
    [({}, "from epoch 0"), ({3: "20%"}, "from epoch 0"), ({0: "20%", 3: 0.5}, "not of one kind"),
     ({0: "20%", 3: "5% of gradient"}, "not of one kind"), ({0: "20%", 3: "0%"}, "not above 0"),
     ({0: None}, "neither")],
)  # fmt: skip
def test_shares_that_do_not_follow_each_other_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        Target.parse_later(given)


def test_in_a_run_a_later_epoch_has_its_own_share(recipe):
    given = ["epoch=10", "distill.terms.fgd.magnitude={0: 20%, 50%: 5%}", "distill.terms.fgd.magnitude_steps=1"]
    loaded = recipe(QUICK, overrides=given)
    model, batch = build_model(loaded), training_batch(loaded)
    terms = []
    for epoch in (0, 4, 5):
        model.enter(epoch)
        terms.append(sum(float(v) for k, v in model(dict(batch)).items() if k.startswith("fgd.")))
    assert terms[1:] == pytest.approx([terms[0], terms[0] / 4], rel=1e-3)


def test_the_factor_is_the_target_over_the_mean_so_far_and_then_stays():
    magnitude = Magnitude(Target(6.0, steps=3))
    own = scalar(100)
    factors = [float(magnitude(scalar(x), own)) for x in (2, 4, 6, 1000, 1e-9)]
    assert factors == pytest.approx([6 / 2, 6 / 3, 6 / 4, 6 / 4, 6 / 4])


def test_a_share_is_of_the_students_own_loss():
    magnitude = Magnitude(Target(0.5, relative=True, steps=2))
    assert [float(magnitude(scalar(x), scalar(own))) for x, own in ((2, 8), (2, 4), (2, 1))] == pytest.approx(
        [2, 1.5, 1.5]
    )


@pytest.mark.parametrize("empty", [0.0, float("nan"), float("inf")])
def test_steps_in_which_the_term_says_nothing_do_not_count(empty):
    magnitude = Magnitude(Target(6.0, steps=2))
    own = scalar(1)
    assert float(magnitude(scalar(empty), own)) == 1.0
    assert [float(magnitude(scalar(x), own)) for x in (2, empty, 4, 9)] == pytest.approx([3, 3, 2, 2])


def test_it_goes_on_from_its_state():
    first = Magnitude(Target(6.0, steps=2))
    first(scalar(2), scalar(1))
    second = Magnitude(Target(6.0, steps=2))
    second.set_state_dict(first.state_dict())
    assert [float(second(scalar(x), scalar(1))) for x in (4, 100)] == pytest.approx([2, 2])


def test_in_a_run_all_levels_together_begin_at_the_share(recipe):
    def losses(*overrides):
        loaded = recipe(QUICK, overrides=overrides)
        paddle.seed(3)
        return {key: float(value) for key, value in build_model(loaded)(training_batch(loaded)).items()}

    usual, scaled = losses(), losses(TWENTY, "distill.terms.fgd.magnitude_steps=1")
    term = sum(value for key, value in scaled.items() if key.startswith("fgd."))
    assert term == pytest.approx(0.2 * (scaled["loss"] - term), rel=1e-4)
    ratios = [scaled[key] / usual[key] for key in usual if key.startswith("fgd.") and usual[key]]
    assert len(ratios) > 6 and max(ratios) == pytest.approx(min(ratios), rel=1e-4), "one factor for all levels"


def test_the_weight_of_the_file_does_not_matter_but_0_turns_it_off(recipe):
    values = []
    for weight in (1, 50):
        loaded = recipe(QUICK, overrides=[TWENTY, f"distill.terms.fgd.weight={weight}"])
        values.append(float(build_model(loaded)(training_batch(loaded))["loss"]))
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    loaded = recipe(QUICK, overrides=[TWENTY, "distill.terms.fgd.weight=0"])
    assert not [key for key in build_model(loaded)(training_batch(loaded)) if key.startswith("fgd")]


def test_the_schedule_goes_on_top(recipe):
    overrides = [TWENTY, "distill.terms.fgd.magnitude_steps=1", "distill.warmup_epochs=1", "epoch=4"]
    loaded = recipe(QUICK, overrides=overrides)
    model, batch = build_model(loaded), training_batch(loaded)
    losses = model(dict(batch))
    term = sum(float(value) for key, value in losses.items() if key.startswith("fgd."))
    assert term == pytest.approx(0.1 * (float(losses["loss"]) - term), rel=1e-4)


def test_resumed_in_the_middle_of_counting_equals_uninterrupted(recipe, tmp_path):
    def run(name, **options):
        given = [
            TWENTY,
            "distill.terms.fgd.magnitude_steps=4",
            "TrainReader.batch_size=4",
            f"save_dir={tmp_path / name}",
        ]
        loaded = recipe(QUICK, overrides=given)
        return fit(loaded, **options), os.path.join(loaded.output_dir, "model_final")

    _, expected = run("whole")
    _, half = run("first", max_steps=2)
    trainer, found = run("second", resume=half)
    assert int(trainer.distillation.magnitudes[0].count) == 4
    states = [paddle.load(path + ".resume") for path in (found, expected)]
    assert any("magnitudes" in key for key in states[0]["terms"])
    for key in ("student", "terms"):
        assert differing(states[0][key], states[1][key]) == []


def test_it_is_none_of_the_students_weights(recipe):
    with Trainer.open(recipe(QUICK, overrides=[TWENTY])) as trainer:
        assert not [key for key in trainer.student.state_dict() if "count" in key or "sums" in key]


def test_a_factor_that_stays_is_exchanged_no_more(monkeypatch):
    """The host looks once the steps are over, and where some did not count, when as many have passed again."""
    exchanged, looked = [], []
    monkeypatch.setattr("ppkd.engine.magnitude.averaged", lambda x: exchanged.append(1) or x)
    monkeypatch.setattr(paddle.Tensor, "__int__", lambda self: looked.append(1) or int(self.item()))
    magnitude, own, factors = Magnitude(Target(6.0, steps=4)), scalar(1), []
    for age in range(40):
        value = scalar(0 if age == 2 else 2)
        factors.append(float(magnitude.factor() if magnitude.frozen(age) else magnitude(value, own)))
    assert len(exchanged) == 8 and len(looked) == 2
    assert factors == [3.0] * 40


def test_in_a_run_it_is_exchanged_for_its_steps_only(recipe, monkeypatch):
    loaded = recipe(QUICK, overrides=[TWENTY, "distill.terms.fgd.magnitude_steps=2"])
    model, batch, exchanged = build_model(loaded), training_batch(loaded), []
    model.batches, results = 100, []
    monkeypatch.setattr("ppkd.engine.magnitude.averaged", lambda x: exchanged.append(1) or x)
    for model.batch in range(5):
        results.append(model(dict(batch)))
    assert len(exchanged) == 2
    terms = [sum(float(v) for k, v in found.items() if k.startswith("fgd.")) for found in results]
    assert terms == pytest.approx(terms[:1] * 5, rel=1e-3)
