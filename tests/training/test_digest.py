"""Resuming with another recipe than the checkpoint's is refused, and the message says in what they differ."""

import pytest

from ppkd.errors import UserError
from ppkd.training.digest import check_same, digest
from tests.helpers_training import FOUR, QUICK, fit


def of(recipe, *overrides, ranks=1, **options):
    return digest(recipe(QUICK, overrides=overrides, **options), ranks)


def test_it_is_flat_and_plain(recipe):
    found = of(recipe)
    assert found["OptimizerBuilder.optimizer.momentum"] == 0.9 and found["ranks"] == 1
    assert found["distill.slim_method"] == "FGD" and found["teacher.width_mult"] == 0.25
    assert "TrainReader.sample_transforms.1.RandomFlip" in found
    assert all(isinstance(value, (bool, int, float, str, list, dict, type(None))) for value in found.values())
    assert of(recipe) == found


@pytest.mark.parametrize(
    "free", ["save_dir=elsewhere", "log_iter=7", "worker_num=3", "keep=2", "EvalReader.batch_size=9", "weights=x"]
)
def test_what_changes_nothing_that_is_learned_is_free(free, recipe):
    assert check_same(of(recipe), of(recipe, free), forced=False) == []


@pytest.mark.parametrize(
    "other, line",
    [
        ("epoch=9", "epoch: 2 then, 9 now"),
        ("LearningRate.base_lr=0.5", "LearningRate.base_lr: 0.01 then, 0.5 now"),
        ("TrainReader.batch_size=3", "TrainReader.batch_size: 2 then, 3 now"),
        ("distill.alpha_fgd=0.7", "distill.alpha_fgd: 0.001 then, 0.7 now"),
        ("teacher.depth_mult=0.67", "teacher.depth_mult: 0.33 then, 0.67 now"),
        ("accumulate=2", "accumulate: not set then, 2 now"),
    ],
)
def test_what_changes_the_result_is_refused_unless_forced(other, line, recipe):
    before, now = of(recipe), of(recipe, other)
    with pytest.raises(UserError, match="-r: the checkpoint is of another recipe") as refused:
        check_same(before, now, forced=False)
    assert line in str(refused.value) and "--force" in str(refused.value)
    assert check_same(before, now, forced=True) == [line]


def test_the_number_of_processes_counts(recipe):
    assert check_same(of(recipe), of(recipe, ranks=2), forced=True) == ["ranks: 1 then, 2 now"]


def test_many_differences_are_counted():
    with pytest.raises(UserError, match="and 4 more"):
        check_same({str(n): 0 for n in range(12)}, {}, forced=False)


def test_how_a_run_goes_on_whose_file_has_got_more_since():
    """A shipped file, or `Auto`, has a bank that it had not when the run was begun."""
    stored = {"epoch": 5, "distill.stop_epoch": 2}
    now = stored | {"distill.bank.views": 4, "distill.bank.gigabytes": 10, "distill.hand_over": "reset"}
    told = r"\. With -o distill\.bank=null distill\.hand_over=null it goes on as it was begun\. Add --force"
    with pytest.raises(UserError, match=told):
        check_same(stored, now, forced=False)
    with pytest.raises(UserError, match="9 now. Add --force"):
        check_same(stored | {"distill.bank.views": 8}, stored | {"distill.bank.views": 9}, forced=False)


def test_training_checks_it(recipe):
    loaded = recipe(QUICK, overrides=[FOUR])
    fit(loaded, max_steps=1)
    path, longer = f"{loaded.output_dir}/model_final", recipe(QUICK, overrides=[FOUR, "epoch=3"])
    with pytest.raises(UserError, match="epoch: 2 then, 3 now"):
        fit(longer, resume=path)
    assert fit(longer, resume=path, force=True, max_steps=2).step == 2
