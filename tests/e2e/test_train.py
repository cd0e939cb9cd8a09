"""The user's main commands, run as a user runs them."""

import json

import pytest

from tests.conftest import CONFIGS
from tests.helpers_training import families


@families
def test_distil_evaluate_infer(family, run_tool, shapes, teacher_weights, tmp_path):
    student = CONFIGS / f"{family}_tiny.yml"
    trained = run_tool(
        "train", "-c", student, "--slim_config", CONFIGS / f"{family}_fgd.yml", "--eval", "--max_steps", 3,
        "-o", f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights[family]}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "output" / f"{family}_tiny"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records = [record for record in records if record["kind"] != "gradients"]
    parts = {key.rsplit(".", 1)[1] for key in records[0] if key.startswith("fgd.")}
    assert parts == {"fg", "bg", "attention", "relation"}
    assert [r["kind"] for r in records] == ["train"] * 3 + ["eval"]

    weights = f"weights={run / 'model_final.pdparams'}"
    evaluated = run_tool("eval", "-c", student, "--json", tmp_path / "ap.json", "-o", f"dataset_dir={shapes}", weights)
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((tmp_path / "ap.json").read_text())["AP"] == pytest.approx(records[-1]["AP"], abs=1e-6)

    image = next((tmp_path / shapes / "val").glob("*.jpg"))
    drawn = run_tool("infer", "-c", student, "--infer_img", image, "--output_dir", "drawn", "-o",
                     f"dataset_dir={shapes}", weights)  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "drawn" / image.name).stat().st_size > 0
