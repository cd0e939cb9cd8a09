"""How many images a step is made of: gradients of several batches, and the learning rate that goes with them."""

import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.training.batch_size import BatchSize
from ppkd.training.trainer import Trainer
from tests.helpers_training import QUICK, settle


def config(**more):
    return {"TrainReader": {"batch_size": 2}, "LearningRate": {"base_lr": 0.1}, **more}


@pytest.fixture
def lines(monkeypatch):
    """What is logged: (level, line)."""
    found = []

    class Log:
        def info(self, text, *values):
            found.append(("info", text % values))

        def warning(self, text, *values):
            found.append(("warning", text % values))

    monkeypatch.setattr("ppkd.training.batch_size.logger", Log)
    return found


def test_images_of_a_step_are_those_of_all_ranks_and_batches(lines):
    assert BatchSize(config(accumulate=3), 4).real == 24
    assert lines == []


def test_another_number_than_the_recipes_is_told_with_what_to_do(lines):
    given = config(total_batch_size=16)
    BatchSize(given, 1)
    ((level, line),) = lines
    assert level == "warning" and given["LearningRate"]["base_lr"] == 0.1
    assert "0.1 is for 16 images a step, and this run has 2" in line
    assert "scale_lr=true makes it 0.0125" in line and "accumulate=8" in line


def test_the_rate_is_scaled_on_request(lines):
    given = config(total_batch_size=16, scale_lr=True, accumulate=2)
    BatchSize(given, 8)
    assert given["LearningRate"]["base_lr"] == pytest.approx(0.2)
    assert lines == [("info", "learning rate 0.1 for 16 images a step becomes 0.2 for 32")]


def test_the_recipes_own_number_is_left_alone(lines):
    given = config(total_batch_size=16, scale_lr=True)
    BatchSize(given, 8)
    assert given["LearningRate"]["base_lr"] == 0.1 and lines == []


@pytest.mark.parametrize(
    "more, message",
    [
        ({"accumulate": 0}, "accumulate has to be a whole number from 1, found 0"),
        ({"accumulate": True}, "accumulate has to be a whole number from 1"),
        ({"total_batch_size": "8"}, "total_batch_size has to be a number of images"),
        ({"scale_lr": "yes"}, "scale_lr has to be true or false"),
        ({"scale_lr": True}, "the config has no total_batch_size"),
    ],
)
def test_wrong_values_are_told(more, message):
    with pytest.raises(UserError, match=message):
        BatchSize(config(**more), 1)


def weights(recipe, tmp_path, name, *overrides):
    """The student after an epoch of YOLOv3, whose loss is a mean over images, without batch statistics."""
    given = ["epoch=1", "TrainReader.shuffle=false", "OptimizerBuilder.clip_grad_by_norm=null", *overrides]
    loaded = recipe("yolov3", distil=False, overrides=[*given, f"save_dir={tmp_path / name}"])
    resize = {"target_size": 64, "random_size": False, "random_interp": False, "keep_ratio": False}
    loaded.student["TrainReader"]["batch_transforms"][0]["BatchRandomResize"] = resize
    with Trainer.open(loaded) as trainer:
        settle(trainer.student)
        trainer.model.train = lambda: None
        trainer.run()
    return trainer, {k: v.numpy() for k, v in trainer.student.state_dict().items()}


def test_gradients_of_two_batches_are_those_of_one_of_twice_the_size(recipe, tmp_path):
    one, expected = weights(recipe, tmp_path, "one", "TrainReader.batch_size=4")
    two, found = weights(recipe, tmp_path, "two", "TrainReader.batch_size=2", "accumulate=2")
    assert (one.step, two.step, two.standing.batches) == (3, 3, 6)
    assert one.optimizer.get_lr() == two.optimizer.get_lr()
    _, other = weights(recipe, tmp_path, "other", "TrainReader.batch_size=2")
    moved = {k for k in expected if np.abs(other[k] - expected[k]).max() > 1e-4}
    assert moved, "the comparison sees no difference"
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_an_epochs_last_step_may_have_fewer_batches(recipe, tmp_path):
    trainer, found = weights(recipe, tmp_path, "left", "TrainReader.batch_size=2", "accumulate=4")
    assert (trainer.standing.batches, trainer.standing.steps, trainer.step) == (6, 2, 2)
    assert all(np.isfinite(value).all() for value in found.values())


def test_a_run_that_accumulates_resumes_to_the_bit(recipe, tmp_path):
    def run(name, **options):
        given = ["accumulate=2", "TrainReader.batch_size=2", "epoch=1", f"save_dir={tmp_path / name}"]
        loaded = recipe(QUICK, overrides=given)
        with Trainer.open(loaded, **options) as trainer:
            trainer.run()
        return loaded.output_dir, {k: v.numpy() for k, v in trainer.student.state_dict().items()}

    _, whole = run("whole")
    half, _ = run("half", max_steps=1)
    _, rest = run("rest", resume=f"{half}/model_final")
    assert all((rest[name] == value).all() for name, value in whole.items())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"TrainReader": None}, "TrainReader: the config has none"),
        ({}, "TrainReader: the config has none"),
        ({"TrainReader": {}, "total_batch_size": 64}, "LearningRate.base_lr has to be a number, found None"),
        ({"TrainReader": {}, "total_batch_size": 64, "LearningRate": None}, "LearningRate.base_lr has to be a number"),
    ],
)
def test_a_config_without_a_reader_or_a_rate_is_told(wrong, message):
    """Found by the fuzz tests."""
    with pytest.raises(UserError, match=message):
        BatchSize(wrong, 1)
