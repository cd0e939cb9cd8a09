"""The training loop: repeatable, resumable, and no file that is not whole."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import create, scope
from ppkd.build import build_student
from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training.averaging import Averaging
from ppkd.training.loader import Order, TrainLoader
from ppkd.training.precision import Precision
from ppkd.training.seeds import seed_step
from ppkd.training.stopping import Stopped
from ppkd.training.trainer import Trainer
from tests.helpers_training import FOUR, QUICK, STRONG, differing, families, fit


def saved(loaded, name="model_final"):
    return paddle.load(os.path.join(loaded.output_dir, name + ".pdparams"))


def quick(recipe, *overrides, **options):
    return recipe(QUICK, overrides=[FOUR, *overrides], **options)


# A run


@families
def test_the_same_recipe_gives_the_same_weights(family, recipe):
    loaded = recipe(family, overrides=STRONG)
    runs = []
    for seed in (1, 2):
        paddle.seed(seed)  # whatever happened in the process before
        np.random.seed(seed)
        trainer = fit(loaded, max_steps=2)
        runs.append((saved(loaded), trainer.distillation.state_dict()))
    assert differing(*runs) == []


def test_another_seed_gives_other_initial_weights(recipe):
    runs = []
    for seed in (0, 1):
        with Trainer.open(quick(recipe, f"seed={seed}", "distill.inherit=false")) as trainer:
            runs.append([trainer.student.state_dict(), trainer.distillation.state_dict()])
    changed = differing(*runs)
    assert any(path.startswith("/0/backbone") for path in changed)
    assert any(path.startswith("/1/terms.0.connect_student") for path in changed)


def test_a_decay_that_ends_before_the_run_is_told(recipe, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    short = "LearningRate.schedulers=[{name: CosineDecay, max_epochs: 1, use_warmup: false}]"
    fit(quick(recipe, short, "epoch=2", distil=False), max_steps=1)
    assert "the learning rate ends after epoch 1 of 2: set LearningRate.schedulers along with epoch" in caplog.text


@pytest.mark.parametrize("steps, epochs, batch", [(2, 0, 2), (3, 1, 0), (4, 1, 1)])
def test_max_steps_ends_the_run_with_a_final_snapshot(steps, epochs, batch, recipe):
    loaded = quick(recipe, distil=False)
    trainer = fit(loaded, max_steps=steps)
    assert (trainer.step, trainer.epoch, trainer.batch) == (steps, epochs, batch)
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    assert all(np.isfinite(record["loss"]) for record in records)
    assert differing(saved(loaded), trainer.student.state_dict()) == [] or trainer.averaging.ema is not None
    assert os.path.exists(os.path.join(loaded.output_dir, "model_final.resume"))


def test_a_snapshot_every_so_many_epochs_and_the_best_by_its_score(recipe, monkeypatch):
    scores = iter([0.3, 0.2, 0.1])
    monkeypatch.setattr("ppkd.training.validation.evaluate", lambda *_, **__: {"AP": next(scores)})
    loaded = quick(recipe, "epoch=5", "snapshot_epoch=2", "TrainReader.batch_size=12", distil=False)
    trainer = fit(loaded, validate=True)
    # PaddleDetection's names: an epoch's number counts from 0.
    names = {name.split(".")[0] for name in os.listdir(loaded.output_dir) if name.endswith(".pdparams")}
    assert names == {"1", "3", "model_final", "best_model"}
    assert trainer.standing.best == 0.3
    assert differing(saved(loaded, "best_model"), saved(loaded, "1")) == []
    assert differing(saved(loaded, "best_model"), saved(loaded, "3"))


def test_evaluation_does_not_change_the_training(recipe):
    runs = []
    for validate in (False, True):
        loaded = quick(recipe, "epoch=2", "TrainReader.batch_size=6")
        fit(loaded, validate=validate)
        runs.append(saved(loaded))
    assert differing(*runs) == []


# Resuming; that it is exact: test_invariants.py, 7, and test_schedules.py


def test_a_resumed_ema_goes_on_as_it_was(recipe, tmp_path):
    # With a trained tensor on its black list, which it does not own, and a cycle that ends after the second snapshot.
    black_list = "ema_black_list=[proj_conv.weight, pred_cls, retina_cls]"
    common = ["TrainReader.batch_size=6", "use_ema=true", "ema_decay=0.5", "cycle_epoch=2", black_list]
    states = {}
    for name, steps, resume in (("whole", None, None), ("half", 2, None), ("rest", None, "half")):
        loaded = quick(recipe, *common, f"save_dir={tmp_path / name}")
        fit(loaded, resume=states[resume][0] if resume else None, max_steps=steps)
        path = os.path.join(loaded.output_dir, "model_final")
        states[name] = (path, paddle.load(path + ".pdparams"), paddle.load(path + ".resume"))
    assert differing(states["rest"][1:], states["whole"][1:]) == []
    for part in [k for k in states["rest"][1] if "pred_cls" in k or "retina_cls" in k]:
        assert (states["rest"][1][part] != states["half"][1][part]).any(), "frozen by the first snapshot"


def test_an_average_leaves_frozen_parameters_alone_but_not_running_statistics(recipe):
    student = build_student(recipe("ppyoloe"))
    names = [name for name, _ in student.named_parameters()]
    frozen = next(name for name in names if name.endswith("conv.weight"))
    dict(student.named_parameters())[frozen].stop_gradient = True
    averaging = Averaging(student, {"use_ema": True, "ema_filter_no_grad": True}, Precision({}, wanted=False))
    running = next(name for name in student.state_dict() if name.endswith("._mean"))
    assert frozen not in averaging.state()["tensors"] and running in averaging.state()["tensors"]
    averaging.update()
    before = student.state_dict()[frozen].numpy()
    with averaging.applied():
        np.testing.assert_array_equal(student.state_dict()[frozen].numpy(), before)


def test_writing_the_last_checkpoint_is_no_snapshot_to_a_cyclic_average(recipe, tmp_path):
    """ppdet begins the average anew after so many snapshots; `last` is written far more often."""
    states = []
    for steps in (0, 1):
        given = ["TrainReader.batch_size=6", "use_ema=true", "cycle_epoch=2", f"snapshot_steps={steps}"]
        loaded = quick(recipe, *given, f"save_dir={tmp_path / str(steps)}", distil=False)
        fit(loaded)
        states.append(paddle.load(os.path.join(loaded.output_dir, "model_final.resume"))["ema"])
        assert os.path.exists(os.path.join(loaded.output_dir, "last.resume")) == bool(steps)
    assert differing(*states) == []


def test_an_evaluation_that_was_cut_off_is_made_when_the_run_goes_on(recipe, monkeypatch):
    scores = iter([KeyboardInterrupt, 0.3, 0.1])

    def evaluate(*_, **__):
        score = next(scores)
        if score is KeyboardInterrupt:
            raise KeyboardInterrupt
        return {"AP": score}

    monkeypatch.setattr("ppkd.training.validation.evaluate", evaluate)
    loaded = quick(recipe, distil=False)
    with pytest.raises(KeyboardInterrupt):
        fit(loaded, validate=True)
    fit(loaded, validate=True, resume="auto")
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        evaluations = [r for r in map(json.loads, file) if r["kind"] == "eval"]
    assert [(r["epoch"], r["step"], r["AP"]) for r in evaluations] == [(1, 3, 0.3), (2, 6, 0.1)]
    assert differing(saved(loaded, "best_model"), saved(loaded, "0")) == []


def test_a_run_that_had_all_its_steps_takes_none_when_resumed(recipe):
    loaded = quick(recipe, distil=False)
    before = fit(loaded, max_steps=3).step
    again = fit(loaded, max_steps=3, resume=os.path.join(loaded.output_dir, "model_final"))
    assert (before, again.step) == (3, 3)


@pytest.mark.parametrize(
    "first, second, message",
    [
        ({"distil": False}, {}, "another --slim_config"),
        ({}, {"distil": False}, "another --slim_config"),
        ({"extra": ["num_classes=7"]}, {}, r"another student \(-c\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_even_when_forced(first, second, message, recipe):
    loaded = quick(recipe, *first.get("extra", ()), distil=first.get("distil", True))
    fit(loaded, max_steps=1)
    with pytest.raises(UserError, match=f"-r: the checkpoint is of .*{message}"):
        fit(quick(recipe, **second), resume=os.path.join(loaded.output_dir, "model_final"), force=True)


@pytest.mark.parametrize("step, saved", [(2, {"last"}), (3, {"0", "last"}), (6, {"model_final"})])
def test_a_run_that_is_asked_to_stop_leaves_what_the_epoch_is_due(step, saved, recipe, monkeypatch):
    """At the end of an epoch its snapshot comes first: going on would not make it any more."""
    loaded = quick(recipe, distil=False)
    with Trainer.open(loaded) as trainer:
        train = trainer._train_batch

        def asked(batch):
            if trainer.step + 1 == step:
                trainer._stop.signal = signal.SIGTERM
            return train(batch)

        monkeypatch.setattr(trainer, "_train_batch", asked)
        if step == 6:
            trainer.run()
        else:
            with pytest.raises(Stopped, match="stopped by SIGTERM; go on with -r"):
                trainer.run()
    assert trainer.step == step
    assert {name.split(".")[0] for name in os.listdir(loaded.output_dir) if name.endswith(".resume")} == saved


# Batches


def batches(loaded, epochs, workers=0, seed=0):
    """All batches of some epochs, in the order in which they are asked for."""
    with scope(loaded.student):
        loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", loaded.student), workers, seed)
        given = {epoch: list(loader.epoch(epoch)) for epoch in epochs}
    for batch in sum(given.values(), []):
        del batch["curr_iter"]  # ppdet's count of samples in this process; nothing reads it in training
    return given


@pytest.mark.parametrize("family", ["retinanet", "ppyoloe"])
def test_a_batch_depends_on_seed_epoch_and_index_only(family, recipe):
    loaded = recipe(family, overrides=[FOUR])
    expected = batches(loaded, [0, 1])
    assert len(expected[0]) == 3
    np.random.seed(5)  # whatever was drawn in the process before
    assert differing(batches(loaded, [1])[1], expected[1]) == [], "depends on the epochs before"
    assert differing(batches(loaded, [0, 1], workers=2), expected) == [], "depends on the workers"
    in_order = recipe(family, overrides=[FOUR, "TrainReader.shuffle=false"])
    first = batches(in_order, [0, 1])
    assert differing(first[0], first[1]), "augments every epoch in the same way"
    assert differing(batches(in_order, [0], seed=1)[0], first[0]), "augments with every seed in the same way"
    assert not differing(batches(in_order, [0])[0], first[0])


def orders(seed, epoch, begin=0, ranks=1, shuffle=True):
    """The batches of 24 images, as lists of indices, on each rank."""
    made = [Order(range(24), seed, batch_size=4, shuffle=shuffle, num_replicas=ranks, rank=r) for r in range(ranks)]
    for order in made:
        order.go_to(epoch, begin)
    return [list(order) for order in made]


def test_the_seed_says_which_images_are_in_a_batch():
    """Not only in which order the same batches come."""
    of_seeds = [{frozenset(batch) for batch in orders(seed, epoch)[0]} for seed in (0, 1, 2) for epoch in (0, 1)]
    assert all(len(batches) == 6 and frozenset.union(*batches) == set(range(24)) for batches in of_seeds)
    shared = [len(a & b) for i, a in enumerate(of_seeds) for b in of_seeds[:i]]
    assert max(shared) <= 1 and orders(1, 0) == orders(1, 0)
    assert orders(1, 0, shuffle=False) == orders(0, 5, shuffle=False)


def test_seed_0_is_paddles_own_order():
    theirs = paddle.io.DistributedBatchSampler(range(24), batch_size=4, shuffle=True, num_replicas=1, rank=0)
    theirs.set_epoch(3)
    assert orders(0, 3) == [list(theirs)]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_rank_has_its_own_part_of_an_order(seed):
    parts = [[i for batch in order for i in batch] for order in orders(seed, 2, ranks=3)]
    assert [len(set(part)) for part in parts] == [8, 8, 8] and set().union(*parts) == set(range(24))


@pytest.mark.parametrize("seed", [0, 1])
def test_an_order_goes_on_where_it_was_left(seed):
    assert [rest == whole[2:] for rest, whole in zip(orders(seed, 2, 2, 2), orders(seed, 2, 0, 2))] == [True, True]


def test_a_resumed_run_has_the_order_of_its_seed(recipe, tmp_path):
    """In the middle of an epoch; by what it trained on."""
    given = ["seed=3", "TrainReader.batch_size=2"]
    states = []
    for steps in ([5], [2, 5]):
        for max_steps in steps:
            loaded = quick(recipe, *given, f"save_dir={tmp_path / str(len(steps))}", distil=False)
            trainer = fit(loaded, max_steps=max_steps, resume="auto" if max_steps != steps[0] else None)
        states.append({key: trainer.state()[key] for key in ("student", "optimizer", "step")})
    assert differing(*states) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_left_early_leaves_no_thread_behind(workers, recipe):
    loaded = recipe(QUICK, overrides=["TrainReader.batch_size=2"])
    with scope(loaded.student):
        loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", loaded.student), workers, 0)
        before = threading.active_count()
        for epoch in range(3):
            batches = loader.epoch(epoch)
            next(batches)
            batches.close()
        limit = time.time() + 20
        while threading.active_count() > before and time.time() < limit:
            time.sleep(0.05)
        assert threading.active_count() <= before
        assert len(list(loader.epoch(3))) == 6


def test_fewer_images_than_a_batch_are_refused(recipe):
    with pytest.raises(UserError, match="12 images, fewer than one batch of 13.*TrainReader.batch_size"):
        batches(recipe(QUICK, overrides=["TrainReader.batch_size=13"]), [0])


def test_a_steps_random_numbers_depend_on_seed_epoch_step_and_rank():
    def draw(*place):
        seed_step(*place)
        return paddle.rand([4]).tolist()

    first = draw(0, 1, 2, 3)
    assert draw(0, 1, 2, 3) == first
    assert all(draw(*place) != first for place in [(1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 0)])


def test_a_loss_that_is_not_finite_ends_the_run(recipe, tmp_path):
    with pytest.raises(UserError, match=r"not finite in epoch 1, batch 1, step 1 .*: the losses fgd"):
        fit(recipe("retinanet", overrides=["distill.alpha_fgd=1e38", "distill.lambda_fgd=1e38"]))
    assert {path.parent.name for path in tmp_path.rglob("*.pdparams")} == {"nonfinite"}


@pytest.mark.parametrize("free, shared", [(64 << 20, False), (2**30 - 4096, False), (2**30, True), (None, True)])
def test_batches_go_through_shared_memory_where_there_is_enough_of_it(free, shared, recipe, monkeypatch, caplog):
    """A container has 64 MB of it, and a loading process that runs out of it is ended by a bus error."""

    def statvfs(path):
        if free is None:
            raise FileNotFoundError(path)
        return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)

    monkeypatch.setattr("ppkd.training.loader.os.statvfs", statvfs)
    loaded = recipe(QUICK, distil=False, overrides=["TrainReader.use_shared_memory=true"])
    with scope(loaded.student):
        dataset = open_dataset("TrainDataset", loaded.student)
        loaders = [TrainLoader(create("TrainReader"), dataset, workers, 0) for workers in (2, 0)]
    assert [loader._loader.use_shared_memory for loader in loaders] == [shared, False]
    assert ("less than 1 GB of shared memory is free (/dev/shm)" in caplog.text) == (not shared)
