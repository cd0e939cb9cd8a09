"""Losses and gradients that are not finite: named, kept for reproduction, skipped or the end of the run."""

import json
import pathlib

import numpy as np
import paddle
import pytest

from ppkd.errors import UserError
from ppkd.files.tensor_files import read_tensors
from ppkd.training import checkpoint
from ppkd.training.numerics import statistics
from ppkd.training.reproduce import reproduce
from ppkd.training.reproducer import FOLDER
from ppkd.training.trainer import Trainer
from tests.engine.test_synchronisation import waits
from tests.helpers_training import FOUR, differing, everything_in

GIVEN = [FOUR, "snapshot_steps=1", "log_iter=100"]


def poison(trainer, *places, value=np.nan):
    """Make the images of some batches, counted from 0, not finite."""
    train, number = trainer._step.train, iter(range(10**6))

    def train_poisoned(batch):
        if next(number) in places:
            batch["image"] = batch["image"] * value
        return train(batch)

    trainer._step.train = train_poisoned


def poison_teacher(trainer, *places):
    """Make what the teacher's neck gives for some batches not finite."""
    train, number, now = trainer._step.train, iter(range(10**6)), []

    def train_poisoned(batch):
        now[:] = [next(number) in places]
        return train(batch)

    def hook(layer, inputs, outputs):
        return [x * np.nan for x in outputs] if any(now) else outputs

    trainer._step.train = train_poisoned
    trainer.distill.teachers["teacher"].neck.register_forward_post_hook(hook)


def run(loaded, *places, poison=poison, **options):
    with Trainer.open(loaded, **options) as trainer:
        poison(trainer, *places)
        trainer.run()
    return trainer


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, shapes, teacher_weights):
    """A run whose teacher gave NaN in its second step: folder, message."""
    from ppkd.recipe.recipe import load_recipe
    from tests.conftest import CONFIGS

    folder = tmp_path_factory.mktemp("stopped")
    given = [f"dataset_dir={shapes}", f"save_dir={folder}", f"teacher.pretrain_weights={teacher_weights['ppyoloe']}"]
    loaded = load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), str(CONFIGS / "ppyoloe_fgd.yml"), [*given, *GIVEN])
    with pytest.raises(UserError) as error:
        run(loaded, 1, poison=poison_teacher)
    return pathlib.Path(loaded.output_dir), str(error.value)


def test_stop_names_where_and_keeps_the_last_good_checkpoint(stopped):
    folder, message = stopped
    assert message.startswith("not finite in epoch 1, batch 2, step 2 (image ids ")
    assert "): the losses fgd.s32." in message and "what the teacher gave: teacher neck[0] (fgd.s32), " in message
    assert "loss_cls" not in message
    state = checkpoint.load(str(folder / "last"))
    assert state["step"] == 1
    assert all(np.isfinite(np.asarray(v)).all() for v in state["student"].values())


def test_stop_saves_the_batch(stopped):
    folder, message = stopped
    (path,) = (folder / FOLDER).iterdir()
    assert path.name == "epoch0_batch1_rank0.pdparams" and str(path) in message
    saved = read_tensors(path)
    ids = ", ".join(str(i) for i in np.asarray(saved["batches"][0]["im_id"]).reshape(-1))
    assert f"image ids {ids})" in message and saved["model"] is None
    assert {name.split(".")[0] for name in saved["not_finite"]} == {"fgd"} and saved["batches"][0]["image"].ndim == 4


def test_skip_leaves_everything_as_it_was(recipe):
    loaded = recipe("ppyoloe", overrides=[*GIVEN, "on_nonfinite=skip", "epoch=1", "log_iter=3"])
    with Trainer.open(loaded) as trainer:
        poison(trainer, 1)
        train, seen = trainer._step.train, []

        def watched(batch):
            before = everything_in(trainer.student), everything_in(trainer.distillation), trainer.averaging.ema.step
            losses = train(batch)
            after = everything_in(trainer.student), everything_in(trainer.distillation), trainer.averaging.ema.step
            seen.append((differing(before, after), len(losses), trainer.lr.last_epoch))
            return losses

        trainer._step.train = watched
        trainer.run()
    assert [bool(moved) for moved, *_ in seen] == [True, False, True]
    assert [counted for _, counted, _ in seen] == [1, 0, 1] and [epoch for *_, epoch in seen] == [1, 2, 3]
    assert (trainer.step, trainer.numerics.skipped, trainer.numerics.row) == (3, 1, 0)
    lines = (pathlib.Path(loaded.output_dir) / "metrics.jsonl").read_text().splitlines()
    (record,) = (record for record in map(json.loads, lines) if record["kind"] == "train")
    assert record["skipped_steps"] == 1 and all(np.isfinite(v) for v in record.values() if not isinstance(v, str))


def saved_of(loaded):
    (path,) = (pathlib.Path(loaded.output_dir) / FOLDER).iterdir()
    return path, read_tensors(path)


def test_a_skipped_step_is_reproduced(recipe):
    loaded = recipe("ppyoloe", overrides=[*GIVEN, "on_nonfinite=skip", "epoch=1"])
    run(loaded, 1)
    path, saved = saved_of(loaded)
    with pytest.raises(ValueError, match="received x_data.*nan"):
        reproduce(loaded, path)
    assert len(saved["not_finite"]) == 1 and "InvalidArgument" in saved["not_finite"][0]


@pytest.mark.parametrize("family", ["ppyoloe", "retinanet"])
def test_a_term_that_was_skipped_is_reproduced(recipe, family):
    """With its own weights, schedule and random numbers: what the teacher has no part in is the same to the bit."""
    given = ["on_nonfinite=skip", "epoch=2", "distill.decay=linear", "distill.final_weight=0.3", "accumulate=2"]
    loaded = recipe(family, overrides=[*GIVEN, *given])
    run(loaded, 4, poison=poison_teacher)
    path, saved = saved_of(loaded)
    assert (saved["epoch"], saved["numbers"], saved["batches_of_epoch"]) == (1, [0, 1], 3)
    good, bad = reproduce(loaded, path)
    assert {name: float(value) for name, value in good.items()} == saved["losses"][0]
    assert any(name.startswith("fgd") for name in good), "the terms were repeated too"
    own = {name: value for name, value in saved["losses"][1].items() if name.startswith("loss_")}
    assert len(own) >= 2 and {name: float(bad[name]) for name in own} == own


def test_a_run_that_skips_resumes_to_the_bit(recipe, tmp_path):
    def states(*resumed):
        given = [*GIVEN, "on_nonfinite=skip", f"save_dir={tmp_path}/{bool(resumed)}"]
        loaded = recipe("ppyoloe", overrides=given)
        if resumed:
            run(loaded, 1, max_steps=2)
            return run(loaded, resume="auto").state()
        return run(loaded, 1).state()

    whole, resumed = states(), states(True)
    assert whole["numerics"] == resumed["numerics"] == {"skipped": 1, "row": 0}
    for key in ("student", "terms", "optimizer", "step"):
        assert differing({key: whole[key]}, {key: resumed[key]}) == [], key


def test_a_matching_goes_on_over_a_skipped_step(recipe):
    """An update that begins at a step that is skipped, and one that is due at it."""
    given = [*GIVEN, "on_nonfinite=skip", "epoch=2", "distill.update_every=4", "distill.track=2"]
    trainer = run(recipe("resnet", "matching", overrides=given), 4, 5)
    assert trainer.numerics.skipped == 2 and trainer.step == 6
    (match,) = (t.connect_teacher[0].links[0] for t in trainer.distill.terms if t.label == "matching.s8")
    # Paddle's ReLU makes zeros of NaN on the CPU, so the stages were finite, and are counted.
    assert int(match.begun) == 4 and float(match.images) == 8 and np.isfinite(match.distances.numpy()).all()


def test_a_part_of_a_step_takes_the_step_with_it(recipe):
    given = ["TrainReader.batch_size=2", "accumulate=3", "on_nonfinite=skip", "epoch=1", "log_iter=100"]
    trainer = run(recipe("ppyoloe", distil=False, overrides=given), 1)
    assert (trainer.step, trainer.numerics.skipped) == (2, 1)
    assert trainer.averaging.ema.step == 1


def test_too_many_in_a_row_end_the_run(recipe):
    given = [*GIVEN, "on_nonfinite=skip", "max_nonfinite=2"]
    loaded = recipe("ppyoloe", distil=False, overrides=given)
    with pytest.raises(UserError, match=r"2 such steps in a row \(max_nonfinite: 2\)"):
        run(loaded, 0, 2, 3)
    folder = pathlib.Path(loaded.output_dir)
    assert checkpoint.load(str(folder / "0"))["step"] == 3
    assert len(list((folder / FOLDER).iterdir())) == 3


def test_the_gradients_are_looked_at_too(recipe):
    loaded = recipe("ppyoloe", distil=False, overrides=[*GIVEN, "on_nonfinite=skip", "max_nonfinite=1"])
    with Trainer.open(loaded) as trainer:
        name, parameter = next(iter(trainer.student.named_parameters()))
        parameter.register_hook(lambda gradient: gradient * np.inf)
        with pytest.raises(UserError, match=f"the gradients of {name}"):
            trainer.run()


def test_a_teacher_is_named(recipe):
    loaded = recipe("ppyoloe", overrides=[*GIVEN, "on_nonfinite=skip", "max_nonfinite=1"])
    with Trainer.open(loaded) as trainer:
        parameter = next(trainer.distill.teachers["teacher"].neck.parameters().__iter__())
        parameter.set_value(parameter * np.nan)
        with pytest.raises(UserError, match=r"losses fgd\.s32.*the teacher gave: teacher neck\[\d\] \(fgd\.s\d+\)"):
            trainer.run()


def test_weights_that_are_not_finite_are_never_saved(recipe):
    """Also where every loss was finite: the last step's gradients were not."""
    loaded = recipe("ppyoloe", distil=False, overrides=[FOUR, "epoch=1", "log_iter=100"])
    with Trainer.open(loaded) as trainer:
        parameter = next(iter(trainer.student.parameters()))
        step = trainer.optimizer.step

        def broken():
            step()
            if trainer.batch == 2:
                parameter.set_value(parameter * np.inf)

        trainer.optimizer.step = broken
        with pytest.raises(UserError, match="model_final is not saved: these weights are not finite .*: backbone"):
            trainer.run()
    assert not list(pathlib.Path(loaded.output_dir).glob("*.pdparams"))


@pytest.mark.parametrize("mode, expected", [("stop", 0), ("skip", 1)])
def test_an_ordinary_step_is_not_waited_for(mode, expected, recipe):
    """With ``skip`` one value is read, and with ``stop`` none, beyond what the step reads anyway."""
    loaded = recipe("ppyoloe", distil=False, overrides=[FOUR, f"on_nonfinite={mode}"])
    with Trainer.open(loaded) as trainer:
        trainer.model.train()
        batches = list(trainer.loader.epoch(0))
        numerics = trainer.numerics
        losses = {"loss": paddle.ones([1]), "loss_cls": paddle.ones([])}
        with waits() as found:
            for number, batch in enumerate(batches):
                numerics.begin()
                numerics.add((0, number, number), batch, losses)
                assert numerics.good()
                numerics.take()
    assert sum(found.values()) == expected * len(batches)


def test_what_a_forward_changes_is_known(recipe):
    """All that a step in train mode changes, but for what is learned."""
    loaded = recipe("ppyoloe", overrides=[FOUR])
    with Trainer.open(loaded) as trainer:
        model, batch = trainer.distill, next(iter(trainer.loader.epoch(0)))
        model.train()
        known = {id(tensor) for tensor in statistics(model)}
        named = dict([*model.named_parameters(), *model.named_buffers()])
        before = {name: tensor.numpy().copy() for name, tensor in named.items()}
        batch["epoch_id"] = 0
        model(batch)
        moved = {name for name, tensor in named.items() if not np.array_equal(tensor.numpy(), before[name])}
    assert moved and {id(named[name]) for name in moved} <= known


UNKNOWN = [("on_nonfinite=go", "stop, skip, found 'go'"), ("max_nonfinite=0", "from 1")]


@pytest.mark.parametrize("given, message", UNKNOWN)
def test_unknown_values(given, message, recipe):
    with pytest.raises(UserError, match=message), Trainer.open(recipe("ppyoloe", distil=False, overrides=[given])):
        pass
