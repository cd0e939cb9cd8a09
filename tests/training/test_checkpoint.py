"""Checkpoints: whole or as they were, found again, and no more of them than wanted."""

import os
import resource
import subprocess
import sys

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.training import checkpoint
from ppkd.training.trainer import Trainer
from tests.conftest import ROOT
from tests.helpers_training import FOUR, differing, fit


@pytest.mark.parametrize(
    "error, raised", [(OSError("No space left"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
@pytest.mark.parametrize("step", ["paddle.save", "os.fsync", "os.replace"])
def test_a_checkpoint_is_whole_or_as_it_was(step, error, raised, tmp_path, monkeypatch):
    path, real = tmp_path / "model.pdparams", paddle.save

    def broken(*args, **kwargs):
        if step == "paddle.save":
            real({"half": paddle.ones([1])}, args[1])
        raise error

    checkpoint.write(str(path), {"w": paddle.zeros([2])})
    monkeypatch.setattr(step, broken)
    with pytest.raises(raised):
        checkpoint.write(str(path), {"w": paddle.ones([2])})
    monkeypatch.undo()
    assert [name.name for name in tmp_path.iterdir()] == ["model.pdparams"]
    assert paddle.load(str(path))["w"].tolist() == [0, 0]
    checkpoint.write(str(path), {"w": paddle.ones([2])})
    assert paddle.load(str(path))["w"].tolist() == [1, 1]


def test_resume_files_are_checked(tmp_path):
    with pytest.raises(UserError, match=r"no resume file .*other\.resume"):
        checkpoint.load(str(tmp_path / "other.pdparams"))
    (tmp_path / "broken.resume").write_bytes(b"\x80\x04nothing")
    with pytest.raises(UserError, match=r"broken\.resume: not a Paddle file, or a damaged one"):
        checkpoint.load(str(tmp_path / "broken"))
    paddle.save({"w": paddle.ones([1])}, str(tmp_path / "weights.resume"))
    with pytest.raises(UserError, match="not a resume file that this version"):
        checkpoint.load(str(tmp_path / "weights.resume"))


@pytest.mark.parametrize("given", ["7", "7.pdparams", "7.resume"])
def test_a_checkpoint_is_found_by_its_weights_as_well(given, tmp_path):
    checkpoint.save(str(tmp_path), "7", {"w": paddle.ones([1])}, {"epoch": 7})
    assert checkpoint.load(str(tmp_path / given))["epoch"] == 7


def stamp(folder, name, seconds):
    os.utime(folder / name, (seconds, seconds))


def test_the_newest_that_can_be_read_is_resumed(tmp_path):
    for second, name in enumerate(("10", "9", "last")):
        checkpoint.save(str(tmp_path), name, {"w": paddle.ones([1])}, {"epoch": name})
        stamp(tmp_path, name + ".resume", 1000 + second)
    assert checkpoint.load_newest(str(tmp_path))["epoch"] == "last"
    (tmp_path / "last.resume").write_bytes((tmp_path / "last.resume").read_bytes()[:-20])
    stamp(tmp_path, "last.resume", 2000)
    assert checkpoint.load_newest(str(tmp_path))["epoch"] == "9", "neither the broken one nor the highest number"
    for name in ("9", "10"):
        (tmp_path / f"{name}.resume").write_bytes(b"")
    with pytest.raises(UserError, match="no resume file of .* can be read"):
        checkpoint.load_newest(str(tmp_path))


@pytest.mark.parametrize("big", [1, 70_000])
def test_the_newest_is_that_of_most_steps_whatever_the_clock_says(big, tmp_path):
    runs = {"model_final": (big, 1, 0), "0": (big * 2, 1, 0), "last": (big * 2, 0, 5), "1": (big * 2 + 1, 1, 1)}
    for second, (name, (step, epoch, batch)) in enumerate(runs.items()):
        state = {"student": {"step": paddle.ones([9])}, "epoch": epoch, "batch": batch, "step": step, "name": name}
        checkpoint.save(str(tmp_path), name, {"w": paddle.ones([1])}, state)
        stamp(tmp_path, name + ".resume", 2000 - second)
    for name in ("1", "0", "last", "model_final"):
        assert checkpoint.load_newest(str(tmp_path))["name"] == name
        (tmp_path / f"{name}.resume").write_bytes(b"\x80\x04nothing")


def test_a_file_of_a_former_version_tells_its_steps_too(tmp_path):
    for second, step in enumerate((300, 7)):
        state = {"format": 2, "epoch": 0, "batch": 1, "step": step, "best": -1.0, "student": {"w": paddle.ones([9])}}
        checkpoint.write(str(tmp_path / f"{step}.resume"), state)
        stamp(tmp_path, f"{step}.resume", 1000 + second)
    assert checkpoint.load_newest(str(tmp_path))["step"] == 300


def test_without_any_there_is_nothing_to_resume(tmp_path):
    assert checkpoint.load_newest(str(tmp_path)) is None
    assert checkpoint.load_newest(str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize("count, left", [(0, {"2", "9", "10"}), (1, {"10"}), (2, {"9", "10"}), (5, {"2", "9", "10"})])
def test_so_many_numbered_ones_are_kept(count, left, tmp_path):
    others = {"best_model", "last", "model_final"}
    for name in {"2", "9", "10"} | others:
        checkpoint.save(str(tmp_path), name, {"w": paddle.ones([1])}, {"epoch": 1})
    checkpoint.keep_newest(str(tmp_path), count)
    for suffix in (".pdparams", ".resume"):
        assert {path.stem for path in tmp_path.glob("*" + suffix)} == left | others


@pytest.mark.parametrize("resumable, written, left", [
    (1, "9", {"9", "23"}), (2, "9", {"2", "9", "23"}), (1, "model_final", set()), (2, "model_final", {"23"}),
    (0, "9", {"1", "2", "9", "23"}),
])  # fmt: skip
def test_what_going_on_needs_is_kept_once_and_the_weights_of_all(resumable, written, left, tmp_path):
    """23 is of a longer run that was in this folder before: no newer one of this run makes it superfluous."""
    numbered, others = {"1", "2", "9", "23"}, {"last", "model_final"}
    for name in numbered | others:
        checkpoint.save(str(tmp_path), name, {"w": paddle.ones([1])}, {"epoch": 1})
    checkpoint.keep_newest(str(tmp_path), 0, resumable, written)
    assert {path.stem for path in tmp_path.glob("*.resume")} == left | others
    assert {path.stem for path in tmp_path.glob("*.pdparams")} == numbered | others


def test_a_full_disk_leaves_the_former_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk's end: either stops a write half way."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
import ppkd, paddle
from ppkd import checkpoint
from ppkd.errors import UserError
folder = {str(tmp_path)!r}
checkpoint.save(folder, "last", {{"w": paddle.ones([10])}}, {{"epoch": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(folder, "last", {{"w": paddle.zeros([10])}}, {{"epoch": 2, "w": paddle.rand([100_000])}})
except UserError as error:
    print(error)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    message = done.stdout.splitlines()[-1]
    assert "last.resume: cannot be written" in message and "earlier checkpoints are untouched" in message
    assert {path.name for path in tmp_path.iterdir()} == {"last.resume", "last.pdparams"}
    assert checkpoint.load(str(tmp_path / "last"))["epoch"] == 1
    assert paddle.load(str(tmp_path / "last.pdparams"))["w"].shape == [10]


# Files of before


def as_before(trainer):
    """A run's state as `Trainer.state` put it together when it wrote every key by hand; the oldest had no more."""
    standing = trainer.standing
    return {
        "format": 2,
        "epoch": standing.epoch,
        "batch": standing.batch,
        "step": standing.step,
        "best": standing.best,
        "to_evaluate": standing.to_evaluate,
        "digest": trainer.digest,
        "student": trainer.student.state_dict(),
        "detector": {},
        "terms": trainer.distillation.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "moving": [p.name for p in trainer.distill.parameters() if p.grad is not None],
        "ema": {
            "step": trainer.averaging.ema.step,
            "epoch": trainer.averaging.ema.epoch,
            "decay": trainer.averaging.ema._decay,
            "tensors": trainer.averaging.ema.state_dict,
        },
        "scaler": None,
    }


def test_a_checkpoint_of_before_goes_on_to_the_bit(recipe, tmp_path):
    """Two more steps from it are those of the run that never stopped."""
    states = []
    for first in (3, 1):
        loaded = recipe("ppyoloe", overrides=[FOUR, f"save_dir={tmp_path}/{first}", "epoch=1"])
        with Trainer.open(loaded, max_steps=first) as trainer:
            trainer.run()
            if first == 1:
                checkpoint.write(str(tmp_path / "old.resume"), as_before(trainer))
        if first == 1:
            trainer = fit(loaded, resume=str(tmp_path / "old"))
        states.append(trainer.state())
        del states[-1]["ema"]["epoch"]  # counts snapshots, of which the resumed run has one more
    assert differing(*states) == [] and states[0]["step"] == 3
