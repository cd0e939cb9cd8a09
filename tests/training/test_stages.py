"""A run in stages: a reader of its own from an epoch on, and a teacher that goes when it is not needed any more."""

import gc
import weakref

import pytest

from ppkd.bridge.workspace import scope
from ppkd.errors import UserError
from ppkd.training.stages import Stages
from ppkd.training.trainer import Trainer
from tests.helpers_training import FOUR, QUICK, count_calls


def names(loader):
    return [type(step).__name__ for step in loader._dataset.transform.transforms_cls]


def test_a_stages_reader_takes_over_at_its_epoch(recipe):
    config = recipe(QUICK, distil=False, overrides=[FOUR]).student
    config["stages"] = [{"epoch": 2, "TrainReader": {"sample_transforms": [{"Decode": {}}]}}, {"epoch": 4}]
    with scope(config):
        found = Stages(config, seed=0)
        seen = {epoch: names(found.loader(epoch)) for epoch in (0, 1, 2, 3, 4, 0)}
    assert seen[0] == seen[1] == ["Decode", "RandomFlip"]
    assert seen[2] == seen[3] == seen[4] == ["Decode"]


def test_within_a_stage_the_loader_stays(recipe):
    config = recipe(QUICK, distil=False, overrides=[FOUR]).student
    config["stages"] = [{"epoch": 2}]
    with scope(config):
        found = Stages(config, seed=0)
        first = found.loader(0)
        assert found.loader(1) is first and found.loader(2) is not first


@pytest.mark.parametrize(
    "given, message",
    [
        ({"epoch": 1}, "stages has to be a list"),
        ([3], "stages has to be a list"),
        ([{"TrainReader": {}}], "every stage needs a first `epoch`"),
        ([{"epoch": 0}], "every stage needs a first `epoch`"),
        ([{"epoch": 3}, {"epoch": 2}], "one after the other"),
        ([{"epoch": 1, "TrainRaeder": {}}], "unknown key 'TrainRaeder'; nearest: TrainReader"),
        ([{"epoch": 1, "TrainReader": {"batch_size": 3}}], "TrainReader.batch_size is 4, but 3 from epoch 1 on"),
    ],
)
def test_wrong_stages_are_told(given, message, recipe):
    config = recipe(QUICK, distil=False, overrides=[FOUR]).student
    config["stages"] = given
    with pytest.raises(UserError, match=message):
        Stages(config, seed=0)


# With CrossKD a connector holds layers of the teacher as well.
@pytest.mark.parametrize("family, method", [(QUICK, "fgd"), ("gfl", "heads")])
def test_after_the_last_distillation_epoch_the_teacher_is_neither_run_nor_held(family, method, recipe):
    loaded = recipe(family, method, overrides=[FOUR, "distill.stop_epoch=1", "epoch=2"])
    with Trainer.open(loaded) as trainer:
        teacher = trainer.distill.teachers["teacher"]
        calls, held = count_calls(teacher.backbone), weakref.ref(teacher)
        del teacher
        trainer.run()
        gc.collect()
        assert (len(calls), trainer.step) == (3, 6)
        assert held() is None and trainer.distill.teachers == {}


@pytest.mark.parametrize("option, kept", [("distill.start_epoch=1", True), ("distill.loss_weight=0", False)])
def test_a_teacher_that_is_still_to_come_is_kept_and_one_without_a_term_is_not(option, kept, recipe):
    with Trainer.open(recipe(QUICK, overrides=[FOUR, option]), max_steps=1) as trainer:
        trainer.run()
        assert bool(trainer.distill.teachers) == kept
