"""The demo from beginning to end, on a few images and steps."""

import json
import pathlib
import sys

import pytest
from pycocotools.coco import COCO

from ppkd.demo import demo
from ppkd.errors import UserError
from tests.bridge.test_coco import ap, opened

TINY = {"train": 16, "val": 8, "size": 192, "seed": 0}


def test_demo_ends_with_results_and_picture_in_any_folder(forks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", forks)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "demo"
    path = pathlib.Path(demo.run(output="demo", data_dir="shapes", data=TINY, max_steps=2))
    results = json.loads(path.read_text())
    assert set(results) == {"teacher", "plain", "distilled"}
    for row in results.values():
        assert set(row) == set(demo.RESULT_KEYS)
        assert row["train_seconds"] > 0
        assert row["params"] > 0 and row["gflops"] > 0 and row["ms_per_image"] > 0
    assert results["teacher"]["AP"] > 0.2, "the shipped teacher finds shapes"
    truth = opened(tmp_path / "shapes" / "annotations" / "instances_val.json", COCO)
    expected = ap(truth, json.loads((output / "detections" / "teacher" / "bbox.json").read_text()))
    assert [results["teacher"][key] for key in ("AP", "AP50")] == pytest.approx(expected[:2], abs=1e-6)
    assert results["plain"]["params"] == results["distilled"]["params"] < results["teacher"]["params"]
    assert (output / "demo.png").stat().st_size > 10_000
    shown = capsys.readouterr().out
    assert "distilled against plain" in shown and "GFLOPs" in shown


def test_a_failed_run_is_named_with_its_last_lines(forks, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", forks)
    broken = tmp_path / "teacher.pdparams"
    broken.write_text("no weights")
    with pytest.raises(UserError, match="distilled student's training failed(.|\n)*not a Paddle file"):
        demo.run(str(broken), str(tmp_path / "demo"), data_dir=str(tmp_path / "shapes"), data=TINY, max_steps=2)


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(UserError, match="--teacher nowhere.pdparams"):
        demo.run("nowhere.pdparams", str(tmp_path / "demo"), data_dir=str(tmp_path / "shapes"), data=TINY)
