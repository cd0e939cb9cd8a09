"""Gradients where terms enter the student: what is measured, what goes by it, and what is kept of it."""

import json
import os

import numpy as np
import paddle
import pytest

from ppkd.build import build_model, build_student
from ppkd.detectors import detector_for
from ppkd.detectors.recorders import recording
from ppkd.engine.balance import gradient, trained_parameters
from ppkd.engine.entering import LettingGo, measure
from ppkd.engine.magnitude import Magnitude
from ppkd.errors import UserError
from ppkd.recipe.plan import schedule_keys, schedule_of
from ppkd.recipe.recipe import load_recipe
from ppkd.recipe.targets import Target
from ppkd.terminal.log import logger
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_training import QUICK, differing, fit

FOUR = "TrainReader.batch_size=4"
TENTH = "distill.terms.fgd.magnitude=10% of gradient"


@pytest.mark.parametrize(
    "text, target",
    [
        ("10% of gradient", Target(0.1, True, gradient=True)),
        (" 7.5 %  of gradient  every epoch ", Target(0.075, True, gradient=True, every_epoch=True)),
    ],
)
def test_a_target_may_be_a_share_of_the_gradient(text, target):
    assert Target.parse(text) == target and Target.parse(target.text) == target


@pytest.mark.parametrize(
    "text", ["0% of gradient", "10% of", "10% of loss", "10% every epoch", "0.1 of gradient", "10%of gradient"]
)
def test_another_wording_is_refused(text):
    with pytest.raises(ValueError, match="is neither|is not above"):
        Target.parse(text)


def entering(term, own, cosine=0.5):
    return type(
        "E", (), {"term": paddle.to_tensor(term), "own": paddle.to_tensor(own), "cosine": paddle.to_tensor(cosine)}
    )


def test_what_is_measured_are_norms_and_the_cosine_in_the_sources():
    paddle.seed(0)
    body, head = paddle.nn.Linear(3, 4), paddle.nn.Linear(4, 2)
    x, target = body(paddle.randn([5, 3])), paddle.randn([5, 4])
    idle = body(paddle.randn([5, 3]))
    own, term = head(x).square().sum(), ((x - target) ** 2).sum()
    found = measure(
        head, {"a": (term, [x, idle]), "b": (own * 2 + idle.sum() * 0, [x]), "c": (paddle.zeros([]), [x])}, own
    )
    of_own = 2 * head(x).numpy() @ head.weight.numpy().T
    of_term = 2 * (x - target).numpy()
    assert [*found] == ["a", "b"], "what has no gradient has no pull"
    seen = [float(value) for value in (found["a"].term, found["a"].own, found["a"].cosine)]
    norms = [np.linalg.norm(g) for g in (of_term, of_own)]
    assert seen == pytest.approx([*norms, (of_term * of_own).sum() / norms[0] / norms[1]], rel=1e-5)
    assert float(found["b"].cosine) == pytest.approx(1) and float(found["b"].term) == pytest.approx(
        2 * norms[1], rel=1e-5
    )
    assert head.weight.grad is None and body.weight.grad is None
    (own + term).backward()  # the graph is still there


def test_a_query_in_another_is_measured_as_a_step_has_it(shapes):
    """Where the values that a deformable attention samples are not asked for, Paddle's grid_sample ends the process."""
    loaded = load_recipe(str(CONFIGS / "deformable_detr_tiny.yml"), overrides=[f"dataset_dir={shapes}"])
    student = build_student(loaded)
    student.train()
    levels = detector_for(student).levels("decoder.query[*]")
    with recording(student, [level.tap for level in levels]) as recorder:
        own = student(training_batch(loaded))["loss"]
    sources = [recorder.take(level.tap) for level in levels]
    term = sum((x * paddle.randn(x.shape)).sum() for x in sources)
    found = measure(student, {"a": (term, sources)}, own)["a"]
    of_own, of_term = (gradient(x, sources, trained_parameters(student)) for x in (own, term))
    dots = [
        sum(float((x * y).sum()) for x, y in zip(*pair)) for pair in ([of_term] * 2, [of_own] * 2, [of_term, of_own])
    ]
    assert [float(found.term), float(found.own)] == pytest.approx([dots[0] ** 0.5, dots[1] ** 0.5], rel=1e-4)
    assert float(found.cosine) == pytest.approx(dots[2] / (dots[0] * dots[1]) ** 0.5, rel=1e-3, abs=1e-5)


def test_of_the_first_steps_a_few_are_looked_at_and_then_the_factor_stays():
    magnitude = Magnitude(Target(0.1, True, steps=8, gradient=True))
    assert [age for age in range(40) if magnitude.due(age)] == [0, 1, 3, 7]
    assert not Magnitude(Target(0.1, True)).due(0)
    assert float(magnitude.factor()) == 0, "a share of nothing"
    factors = []
    for age, (term, own) in {
        0: (2.0, 40.0),
        1: (0.0, 7.0),
        3: (float("nan"), 1.0),
        7: (4.0, 20.0),
        8: (1.0, 99.0),
    }.items():
        magnitude.look(entering(term, own), age)
        factors.append(float(magnitude.factor()))
    assert factors == pytest.approx([2.0, 2.0, 2.0, 1.0, 1.0])


def test_if_nothing_counted_in_the_first_steps_the_first_that_does_decides():
    magnitude = Magnitude(Target(0.5, True, steps=2, gradient=True))
    for age, (term, own) in {0: (0.0, 1.0), 5: (2.0, 8.0), 9: (2.0, 80.0)}.items():
        magnitude.look(entering(term, own), age)
    assert float(magnitude.factor()) == pytest.approx(2.0)


def test_every_epoch_half_of_what_counts_is_the_last():
    magnitude = Magnitude(Target(1.0, True, steps=2, gradient=True, every_epoch=True))
    factors = []
    for age, own in {0: 2.0, 1: 4.0, 10: 7.0, 20: 1.0, 30: float("inf"), 40: 3.0}.items():
        magnitude.look(entering(1.0, own), age)
        factors.append(float(magnitude.factor()))
    assert factors == pytest.approx([2.0, 3.0, 5.0, 3.0, 3.0, 3.0])


def test_a_term_ends_when_it_pulls_against_the_labels_on_the_mean_of_three_epochs():
    ending, again = LettingGo(), LettingGo()
    for epoch, cosine in enumerate((0.1, -0.5, float("nan"), 0.5, 0.2, -0.9)):
        ending.look(paddle.to_tensor(cosine), epoch)
        assert not ending.over(epoch), "what an epoch shows is for the next"
        again.set_state_dict(ending.state_dict())
        assert again.over(epoch + 1) == ending.over(epoch + 1) == (epoch == 5)
    ending.look(paddle.to_tensor(1.0), 6)
    assert ending.over(7) and not ending.over(5), "for good"
    young = LettingGo()
    for epoch in range(2):
        young.look(paddle.to_tensor(-1.0), epoch)
    assert not young.over(2)


def test_stop_is_auto_or_nothing():
    schedule = schedule_of({"stop": "auto"}, 12, "x.yml: distill")
    assert schedule.auto and schedule_keys(schedule) == {"stop": "auto"}
    for wrong in (7, True, "never"):
        with pytest.raises(UserError, match=r"x.yml: distill.stop has to be auto, found .*; an epoch is stop_epoch"):
            schedule_of({"stop": wrong}, 12, "x.yml: distill")


def gradient_share(losses, model, recorded):
    """Share of the term's gradient in the neck's maps, from a plain backward pass of each."""
    label = ("fgd.",)
    term = sum(value for key, value in losses.items() if key.startswith(label))
    own = losses["loss"] / model.alpha - term
    both = [paddle.grad(value, recorded, retain_graph=True, allow_unused=True) for value in (term, own)]
    squares = [sum(float((g.astype("float64") ** 2).sum()) for g in each if g is not None) for each in both]
    return (squares[0] / squares[1]) ** 0.5


def test_in_a_run_all_levels_together_begin_at_the_share_of_the_gradient(recipe):
    loaded = recipe(QUICK, overrides=[TENTH])
    paddle.seed(3)
    model, maps = build_model(loaded), []
    enliven(model.student)  # as ppdet builds it, its last weights are zero, and with them the gradient
    handle = model.student.neck.register_forward_post_hook(lambda layer, given, out: maps.extend(out))
    model.train()
    model.watched = True
    losses = model(training_batch(loaded))
    handle.remove()
    share = gradient_share(losses, model, maps)
    assert share == pytest.approx(0.1, rel=1e-3)
    pulls = model.take_pulls()
    found, cosine = pulls["fgd.share"], pulls["fgd.cosine"]
    assert found == pytest.approx(share, rel=1e-3) and -1 <= cosine <= 1


@pytest.mark.parametrize("alive, epoch, told", [(False, 1, 1), (True, 1, 0), (False, 0, 0)])
def test_a_share_of_next_to_no_gradient_is_told_once(recipe, caplog, monkeypatch, alive, epoch, told):
    loaded = recipe(QUICK, overrides=[f"{TENTH} every epoch", "epoch=3"])
    model = build_model(loaded)
    if alive:
        enliven(model.student)
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    model.train()
    model.enter(epoch)
    batch = training_batch(loaded)
    for _ in range(2):
        model.watched = True
        model(dict(batch))
        model.take_pulls()
    lines = [each for each in caplog.records if "its share of the gradient makes it" in each.getMessage()]
    assert len({id(each) for each in lines}) == told


def test_resumed_equals_uninterrupted_and_the_log_has_a_record_an_epoch(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("ppkd.training.standing.WATCH", 3)
    given = [f"{TENTH} every epoch", "distill.terms.fgd.magnitude_steps=2", "distill.stop=auto", FOUR, "epoch=3"]

    def run(name, **options):
        loaded = recipe(QUICK, overrides=[*given, f"save_dir={tmp_path / name}"])
        fit(loaded, **options)
        return loaded.output_dir

    def records(folder):
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            return [r for r in map(json.loads, file) if r["kind"] == "gradients"]

    whole, first = run("whole"), run("first", max_steps=4)
    second = run("first", resume="auto")
    expected, found = (paddle.load(os.path.join(x, "model_final.resume")) for x in (whole, second))
    for key in ("student", "terms"):
        assert differing(found[key], expected[key]) == []
    assert first == second and records(second) == records(whole)
    assert [(r["epoch"], r["step"]) for r in records(whole)] == [(0, 0), (1, 3), (2, 6)]
    first, *later = records(whole)
    assert first["fgd.share"] is None, "before its first step the head passes no gradient on"
    assert all(0 < r["fgd.share"] < 1 and -1 <= r["fgd.cosine"] <= 1 for r in later)


def test_a_run_lets_a_term_go_that_pulls_against_the_labels(recipe, monkeypatch, caplog):
    monkeypatch.setattr("ppkd.training.standing.WATCH", 1)
    look = LettingGo.look
    monkeypatch.setattr(LettingGo, "look", lambda self, cosine, epoch: look(self, paddle.full([], -0.25), epoch))
    trainer = fit(recipe(QUICK, overrides=["distill.stop=auto", "TrainReader.batch_size=12", "epoch=5"]))
    assert (
        "epoch 4: term fgd is over (stop: auto): the cosine of its gradient and the detection loss's was -0.250"
        in caplog.text
    )
    assert trainer.distill.teachers == {}, "with the last term the teacher goes"
