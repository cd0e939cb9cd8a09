"""A run ends when its AP has stopped rising, the resumed one exactly where the one that never stopped does."""

import os

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.training.patience import Patience
from ppkd.training.trainer import Trainer
from tests.helpers_training import QUICK, differing, fit

APS = [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, 0.5]


def scored(monkeypatch, trainers):
    """Evaluations give `APS` by epoch, whoever asks and however often."""
    monkeypatch.setattr("ppkd.training.validation.evaluate", lambda *_, **__: {"AP": APS[trainers[-1].epoch - 1]})


def train(loaded, monkeypatch, **options):
    trainers = []
    scored(monkeypatch, trainers)
    with Trainer.open(loaded, validate=True, **options) as trainer:
        trainers.append(trainer)
        trainer.run()
    return trainer


def test_it_ends_early_and_a_resumed_run_ends_at_the_same_epoch(recipe, monkeypatch, tmp_path):
    common = ["TrainReader.batch_size=12", "epoch=7", "patience=3"]
    whole = recipe(QUICK, distil=False, overrides=[*common, f"save_dir={tmp_path / 'whole'}"])
    assert train(whole, monkeypatch).epoch == 5
    resumable = [name for name in os.listdir(whole.output_dir) if name.endswith(".resume")]
    assert resumable == ["model_final.resume"], "as at the end of any run"
    parts = recipe(QUICK, distil=False, overrides=[*common, f"save_dir={tmp_path / 'parts'}"])
    assert train(parts, monkeypatch, max_steps=4).epoch == 4
    for _ in range(2):  # and going on with what has ended changes nothing
        trainer = train(parts, monkeypatch, resume="auto")
        assert (trainer.epoch, trainer.patience.since, trainer.standing.best) == (5, 3, 0.3)
    finals = [paddle.load(os.path.join(each.output_dir, "model_final.resume")) for each in (whole, parts)]
    for state in finals:
        state.pop("digest")
    assert differing(*finals) == []


@pytest.mark.parametrize("notes, over", [("bwww", True), ("bwwbww", False), ("www", True), ("", False), ("ww", False)])
def test_it_counts_evaluations_since_the_best(notes, over):
    patience = Patience({"patience": 3}, True)
    for note in notes:
        patience.note(note == "b")
    assert patience.over() == over and not Patience({}, False).over()


def test_without_evaluations_there_is_nothing_to_count(recipe):
    with pytest.raises(UserError, match="patience: 2 counts evaluations, and this run makes none: add --eval"):
        fit(recipe(QUICK, distil=False, overrides=["patience=2"]))
    with pytest.raises(UserError, match="patience has to be a whole number from 0"):
        Patience({"patience": "soon"}, True)
