"""The programs that measure, as the pages show them, on what is quick of each."""

import json
import os
import subprocess

import pytest

from tests.conftest import CONFIGS, ROOT


def run(python, script, *arguments, folder=ROOT):
    """What a script of ``benchmarks/`` prints; fails with its last words where it does."""
    done = subprocess.run(
        [python, str(ROOT / "benchmarks" / script), *map(str, arguments)], cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_rows_of_losses_are_measured_beside_ppdet(forks, tmp_path):
    shown = run(forks, "run.py", "--only", "loss_ld", "--json", tmp_path / "rows.json")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["ours_s"] > 0 and row["ratio"] == pytest.approx(row["ppdet_s"] / row["ours_s"])
    assert row["name"] in shown and "targets met" in shown


def test_what_gpus_would_take_is_reckoned(forks):
    shown = run(forks, "study/estimate.py", "yolov3")
    student, teacher = map(float, shown.splitlines()[-1].split("yolov3")[1].split()[:2])
    assert teacher > student > 1 and "64 GPUs" in shown


def test_methods_are_compared_over_seeds_and_a_sweep_goes_on(forks, tmp_path, shapes, teacher_weights):
    arguments = [
        "-c", CONFIGS / "ppyoloe_tiny.yml", "--teacher", teacher_weights["ppyoloe"],
        "--slim", f"FGD={CONFIGS / 'ppyoloe_fgd.yml'}", "--seeds", "0", "--output", tmp_path / "sweep",
        "-o", f"dataset_dir={shapes}", "epoch=1", "TrainReader.batch_size=4",
    ]  # fmt: skip
    first = run(forks, "methods/seeds.py", *arguments)
    assert "1 of 2 runs" in first and "2 of 2 runs" in first
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert set(results) == {"plain", "FGD"} and all(len(rows) == 1 for rows in results.values())
    again = run(forks, "methods/seeds.py", *arguments)
    assert " of 2 runs" not in again, "what has finished is not run again"
    assert again == first[first.index(again[:20]) :]


def test_plain_training_is_measured_beside_ppdets_trainer(forks):
    shown = run(forks, "training/beside_ppdet.py", "--steps", 2, "--repeats", 1, "--workers", 0)
    workers, ours, theirs, ratio, *_, our_evaluation, their_evaluation, _ = map(float, shown.splitlines()[-1].split())
    assert workers == 0 and min(ours, theirs, our_evaluation, their_evaluation) > 0
    assert ratio == pytest.approx(ours / theirs, abs=0.01)
