"""What a run records: every step once, whatever happened on the way, and times and memory beside the losses."""

import json
import sys
import types

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.recipe.recipe import Recipe
from ppkd.training.meters import Meters
from ppkd.training.records import read_records
from ppkd.training.runlog import RunLog
from tests.helpers_training import FOUR, QUICK, fit


@pytest.fixture
def log(tmp_path):
    return RunLog(str(tmp_path / "out"), Recipe("r", {"epoch": 2}), True)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]


def test_rewinding_drops_what_will_be_recorded_again(log, tmp_path):
    for step in (1, 2, 3):
        log.add({"kind": "train", "step": step})
    log.add({"kind": "eval", "step": 2})
    with open(tmp_path / "out" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "tra')  # a kill in the middle of a line
    log.rewind(2)
    assert lines(tmp_path) == [{"kind": "train", "step": 1}, {"kind": "train", "step": 2}]
    log.add({"kind": "train", "step": 3})
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize("names", [{"terms": ["fgd"], "parts": ["moments"]}, {"terms": [], "parts": ["average"]}])
def test_records_of_restarts_are_kept_and_read(log, tmp_path, names):
    log.add({"kind": "restart", "epoch": 1, "step": 2, "warmup": 20, **names})
    log.rewind(3)
    assert lines(tmp_path) == [{"kind": "restart", "epoch": 1, "step": 2, "warmup": 20, **names}]
    assert read_records(str(tmp_path / "out" / "metrics.jsonl")) == lines(tmp_path)
    log.add({"kind": "restart", "epoch": 1, "step": 2, "warmup": 20, **names, "parts": [7]})
    assert len(read_records(str(tmp_path / "out" / "metrics.jsonl"))) == 1


def test_a_new_run_in_the_folder_of_another_begins_a_new_record(recipe):
    loaded = recipe(QUICK, distil=False, overrides=[FOUR])
    for _ in range(2):
        fit(loaded, max_steps=2)
        with open(f"{loaded.output_dir}/metrics.jsonl", encoding="utf-8") as file:
            assert [json.loads(line)["step"] for line in file] == [1, 2]


def test_only_the_first_process_writes(tmp_path):
    log = RunLog(str(tmp_path / "out"), Recipe("r", {}), False)
    log.add({"kind": "train", "step": 1})
    log.rewind(0)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="output folder .* is not writable.*save_dir"):
        RunLog(str(tmp_path / "out"), Recipe("r", {}), True)


def test_a_full_disk_is_told(log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(UserError, match="cannot be written: .*No space left on device; checkpoints are untouched"):
        log.add({"kind": "train", "step": 1})


def test_visualdl_gets_the_same_numbers(tmp_path, monkeypatch):
    class Writer(list):
        def add_scalar(self, *call):
            self.append(call)

    writers = {}
    library = types.SimpleNamespace(LogWriter=lambda folder: writers.setdefault(folder, Writer()))
    monkeypatch.setitem(sys.modules, "visualdl", library)
    log = RunLog(str(tmp_path / "out"), Recipe("r", {}), True, "curves")
    log.add({"kind": "train", "step": 7, "epoch": 1, "loss": 2.0, "fgd.s8.fg": 0.5})
    assert writers == {"curves": [("train/loss", 2.0, 7), ("train/fgd.s8.fg", 0.5, 7)]}


def test_meters_count_steps_of_the_optimizer_and_average_over_batches():
    meters = Meters(total_steps=10, every=2, batch_size=8)
    for value, whole in ((1.0, False), (2.0, True), (3.0, False)):
        meters.add([{"loss": paddle.to_tensor(value)}], whole=whole)
    assert not meters.due() and meters.due(ahead=1)
    meters.add([{"loss": paddle.to_tensor(6.0)}], teacher_seconds=0.25, whole=True)
    assert meters.due()
    record = meters.read()
    assert record["loss"] == 3.0 and record["teacher_seconds"] == 0.25 and record["memory_gb"] > 0.05
    assert 0.05 < record["memory_held_gb"] <= record["memory_gb"] * 1.05
    assert not meters.due() and "teacher_seconds" not in meters.read()
    line = next(Meters.lines({**record, "kind": "train", "epoch": 0, "step": 2, "lr": 0.1}, "here"))
    assert line.startswith("here  loss 3.0000  lr 1.00e-01") and "teacher 0.25, student 0." in line and " GB  " in line


def test_a_slow_run_is_told_in_between_and_its_record_stays_whole(monkeypatch):
    """20 seconds without a line are silence, whatever `log_iter` says; what is told then is no record."""
    now = [100.0]
    monkeypatch.setattr("ppkd.training.meters.time.time", lambda: now[0])
    meters = Meters(total_steps=10, every=100, batch_size=1)
    seen = []
    for value in (1.0, 2.0, 3.0):
        now[0] += 9
        meters.add([{"loss": paddle.to_tensor(value)}])
        seen.append(meters.silent())
        if seen[-1]:
            assert meters.so_far()["loss"] == 2.0 and not meters.silent()
    assert seen == [False, False, True]
    record = meters.read()
    assert (record["loss"], record["seconds_per_step"]) == (2.0, 9.0)


def test_every_epoch_has_a_record(recipe):
    loaded = recipe(QUICK, distil=False, overrides=["TrainReader.batch_size=6", "epoch=2", "log_iter=100"])
    fit(loaded)
    with open(f"{loaded.output_dir}/metrics.jsonl", encoding="utf-8") as file:
        assert [record["step"] for record in map(json.loads, file)] == [2, 4]


def test_a_run_records_the_teachers_time_while_there_is_one(recipe, tmp_path):
    loaded = recipe(QUICK, overrides=[FOUR, "distill.stop_epoch=1", "log_iter=3"])
    fit(loaded)
    with open(f"{loaded.output_dir}/metrics.jsonl", encoding="utf-8") as file:
        first, second = (record for record in map(json.loads, file) if record["kind"] == "train")
    assert first["teacher_seconds"] > 0 and "teacher_seconds" not in second
    for record in (first, second):
        parts = record["data_seconds"] + record.get("teacher_seconds", 0) + record["student_seconds"]
        assert parts == pytest.approx(record["seconds_per_step"], abs=2e-3) and record["student_seconds"] > 0
    assert {"images_per_second", "seconds_left", "memory_gb", "lr"} <= set(second)
