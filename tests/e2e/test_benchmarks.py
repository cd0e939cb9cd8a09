"""The programs that measure, as the pages show them, on what is quick of each."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import CONFIGS, ROOT


def run(script, *arguments, folder=ROOT):
    """What a script of ``benchmarks/`` prints; fails with its last words where it does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)], cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_rows_of_losses_are_measured_beside_ppdet(tmp_path):
    shown = run("run.py", "--only", "loss_ld", "--json", tmp_path / "rows.json")
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["ours_s"] > 0 and row["ratio"] == pytest.approx(row["ppdet_s"] / row["ours_s"])
    assert row["name"] in shown and "targets met" in shown


def test_what_gpus_would_take_is_reckoned():
    shown = run("study/estimate.py", "yolov3")
    student, teacher = map(float, shown.splitlines()[-1].split("yolov3")[1].split()[:2])
    assert teacher > student > 1 and "64 GPUs" in shown


def test_methods_are_compared_over_seeds_and_a_sweep_goes_on(tmp_path, shapes, teacher_weights):
    arguments = [
        "-c", CONFIGS / "ppyoloe_tiny.yml", "--teacher", teacher_weights["ppyoloe"],
        "--slim", f"FGD={CONFIGS / 'ppyoloe_fgd.yml'}", "--seeds", "0", "--output", tmp_path / "sweep",
        "-o", f"dataset_dir={shapes}", "epoch=1", "TrainReader.batch_size=4",
    ]  # fmt: skip
    first = run("methods/seeds.py", *arguments)
    assert "1 of 2 runs" in first and "2 of 2 runs" in first
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert set(results) == {"plain", "FGD"} and all(len(rows) == 1 for rows in results.values())
    again = run("methods/seeds.py", *arguments)
    assert " of 2 runs" not in again, "what has finished is not run again"
    assert again == first[first.index(again[:20]) :]


def test_the_evidence_is_run_kept_and_made_a_page_of(tmp_path, shapes):
    data = tmp_path / "data"
    data.mkdir()
    (data / "bccd").symlink_to(shapes)
    common = [
        "--data", data, "--work", tmp_path / "work", "--results", tmp_path / "results.json", "--set", "bccd",
        "-o", "epoch=1", "snapshot_epoch=1", "log_iter=1", "TrainReader.batch_size=12", "train_images=train",
        "val_images=val", "train_annotations=annotations/instances_train.json",
    ]  # fmt: skip
    assert "plain" in run("evidence/run.py", "--list", *common)
    for arm in ("teacher", "ppyoloe_doc"):
        run("evidence/run.py", "--arm", arm, "--seed", "0", *common)
    records = {record["arm"]: record for record in json.loads((tmp_path / "results.json").read_text())}
    taught = records["ppyoloe_doc"]
    assert taught["steps"] == taught["curve"][-1][0] > 0 and taught["teacher_AP"] == records["teacher"]["AP"]
    run("evidence/page.py", "--results", tmp_path / "results.json", "--output", tmp_path / "page.md")
    assert "| ppyoloe_doc | val |" in (tmp_path / "page.md").read_text()


def test_helping_is_what_the_protocol_says():
    from benchmarks.evidence.page import page

    def runs(arm, *scores):
        common = {"data": "d", "student": "s.yml", "arm": arm, "seconds_per_step": 1.0}
        return [{**common, "seed": i, "AP": ap, "curve": [[9, ap / 2], [20, ap]]} for i, ap in enumerate(scores)]

    text = page([*runs("plain", 0.4, 0.41, 0.39), *runs("better", 0.42, 0.432, 0.411),
                 *runs("little", 0.403, 0.413, 0.393), *runs("wide", 0.5, 0.41, 0.39),
                 *runs("worse", 0.38, 0.391, 0.369), *runs("once", 0.5),
                 {"data": "d", "student": "s.yml", "arm": "lost", "seed": 0, "failed": "exit 1: why"}])  # fmt: skip
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    words = {arm: rows[arm].split(" | ")[6] for arm in ("better", "little", "wide", "worse", "once", "plain")}
    assert words == {"better": "**helps**", "little": "not told apart", "wide": "not told apart",
                     "worse": "**hurts**", "once": "one seed", "plain": ""}  # fmt: skip
    assert "Failed: lost, seed 0: exit 1: why" in text
