"""The ONNX example of docs/export.md, run as it stands on a detector that has learned something."""

import ast
import pathlib
import subprocess
import sys

import pytest

import ppkd
from tests.conftest import ROOT
from tests.helpers_docs import blocks
from tests.helpers_tools import call

WEIGHTS = ROOT / "ppkd" / "data" / "teacher_shapes.pdparams"
# Boxes of two resamplers: what is near the threshold may be on either side of it.
SURE, PIXELS = 0.6, 4.0


def test_the_onnx_example_finds_what_ppkd_infer_finds(shapes, tmp_path, monkeypatch, capsys):
    for needed in ("paddle2onnx", "onnxruntime"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    (code,) = (block for block in blocks((ROOT / "docs" / "export.md").read_text()) if "onnxruntime." in block)
    monkeypatch.chdir(tmp_path)
    base = ROOT / "configs" / "demo" / "ppyoloe_plus_teacher_shapes.yml"
    (tmp_path / "student.yml").write_text(f"_BASE_: [{base}]\ndataset_dir: {shapes}\nuse_gpu: false\n")
    assert call("export_model", "-c", "student.yml", "--onnx", "-o", f"weights={WEIGHTS}") == (0, "")
    picture = max(pathlib.Path(shapes, "val").iterdir(), key=lambda path: path.stat().st_size)
    (tmp_path / "x.jpg").write_bytes(picture.read_bytes())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [line.split(" ", 2) for line in done.stdout.splitlines()]
    found = [(name, float(score), ast.literal_eval(box)) for name, score, box in found]
    (expected,) = ppkd.predict("student.yml", WEIGHTS, "x.jpg").values()
    assert len(expected) >= 2
    assert "creating index" not in capsys.readouterr().out, "pycocotools' noise"
    for ours, theirs in ((expected, found), (found, expected)):
        for name, score, box in (_plain(each) for each in ours):
            near = [o for o in map(_plain, theirs) if o[0] == name and _apart(o[2], box) < PIXELS]
            assert near or score < SURE, (name, score, box, expected, found)


def _plain(each):
    return each if isinstance(each, tuple) else (each.name, each.score, each.box)


def _apart(one, other):
    return max(abs(float(a) - float(b)) for a, b in zip(one, other))
