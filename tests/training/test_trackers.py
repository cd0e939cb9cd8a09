"""Records also go to trackers: by stand-ins that take what the libraries take, and no other arguments."""

import json
import os
import sys
import types

import pytest

from ppkd.errors import UserError
from ppkd.training.runlog import RunLog
from ppkd.training.trackers import open_trackers
from tests.helpers_training import FOUR, QUICK, fit


class Writer:
    """As ``tensorboard.summary.Writer`` and ``visualdl.LogWriter``: scalars at steps."""

    def __init__(self, logdir):
        self.logdir, self.scalars, self.closed = logdir, [], False
        Writer.last = self

    def add_scalar(self, tag, value, step):
        assert not self.closed
        self.scalars.append((tag, value, step))

    def close(self):
        self.closed = True


class Run:
    """As what ``wandb.init`` gives."""

    def __init__(self, **given):
        self.given, self.logged, self.finished = given, [], False
        Run.last = self

    def log(self, data, step=None):
        self.logged.append((data, step))

    def finish(self):
        self.finished = True


@pytest.fixture
def libraries(monkeypatch):
    modules = {
        "tensorboard": types.ModuleType("tensorboard"),
        "tensorboard.summary": types.SimpleNamespace(Writer=Writer),
        "visualdl": types.SimpleNamespace(LogWriter=Writer),
        "wandb": types.SimpleNamespace(init=lambda **given: Run(**given)),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_every_record_of_a_run_is_handed_on(name, libraries, recipe):
    loaded = recipe(QUICK, distil=False, overrides=[FOUR])
    fit(loaded, max_steps=2, trackers=[name])
    with open(f"{loaded.output_dir}/metrics.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    assert [record["step"] for record in records] == [1, 2]
    losses = [("train/loss", record["loss"], record["step"]) for record in records]
    if name == "tensorboard":
        assert [each for each in Writer.last.scalars if each[0] == "train/loss"] == losses and Writer.last.closed
        assert Writer.last.logdir == f"{loaded.output_dir}/tensorboard"
    else:
        assert [("train/loss", data["train/loss"], step) for data, step in Run.last.logged] == losses
        assert Run.last.finished and Run.last.given["config"]["epoch"] == loaded.student["epoch"]


def test_a_folder_is_one_run_of_weights_and_biases(libraries, tmp_path, monkeypatch):
    loaded = types.SimpleNamespace(student={"epoch": 3, "TrainReader": {}})
    numbers = []
    for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "a"):
        open_trackers(["wandb"], str(folder), loaded)
        numbers.append(Run.last.given["id"])
        assert Run.last.given["resume"] == "allow" and Run.last.given["config"] == {"epoch": 3}
    assert numbers[0] == numbers[2] != numbers[1]
    monkeypatch.setenv("WANDB_PROJECT", "cells")
    open_trackers(["wandb"], str(tmp_path), loaded)
    assert Run.last.given["project"] == "cells"


def test_what_cannot_be_tracked_is_one_line(libraries, tmp_path, monkeypatch):
    loaded = types.SimpleNamespace(student={})
    with pytest.raises(UserError, match="--track tensorbord: there are .*nearest: tensorboard"):
        open_trackers(["tensorbord"], str(tmp_path), loaded)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(UserError, match="--track tensorboard: its library cannot be imported: pip install tensorboard"):
        open_trackers(["tensorboard"], str(tmp_path), loaded)

    def refused(**given):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UserError, match="--track wandb: ConnectionError: no network"):
        open_trackers(["wandb"], str(tmp_path), loaded)


@pytest.mark.parametrize("name", ["tensorbord", "wandb"])
def test_a_run_that_cannot_be_tracked_leaves_the_record_of_the_one_before(name, libraries, recipe, monkeypatch):
    loaded = recipe(QUICK, distil=False, overrides=[FOUR])
    os.makedirs(loaded.output_dir)
    path = os.path.join(loaded.output_dir, "recipe.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write("run: {}\n")
    monkeypatch.setattr(sys.modules["wandb"], "init", None)
    with pytest.raises(UserError, match=f"--track {name}: "):
        RunLog(loaded.output_dir, loaded, True, trackers=[name])
    with open(path, encoding="utf-8") as file:
        assert file.read() == "run: {}\n"
