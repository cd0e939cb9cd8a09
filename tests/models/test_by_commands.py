"""RepPoints and SOLO by a user's commands: distilled, examined, resumed; `tools/support_table.py` has the rest."""

import json

import numpy as np
import paddle
import pytest

from ppkd.exporting import onnx
from tests.conftest import CONFIGS
from tests.helpers_tools import call, the_error

FAMILIES = {"reppoints": ("AP", "bbox"), "solo": ("mask_AP", "segm")}


@pytest.fixture(params=FAMILIES)
def given(request, shapes, teacher_weights, tmp_path):
    """The family, the options of a distilled run by FGD, and the folder that it leaves."""
    family = request.param
    slim = tmp_path / "slim.yml"
    slim.write_text(f"_BASE_: [{CONFIGS}/{family}_wide.yml]\nslim: Distill\nslim_method: FGD\n")
    config = CONFIGS / f"{family}_tiny.yml"

    def options(name, *more):
        values = [f"dataset_dir={shapes}", f"save_dir={tmp_path / name}", "TrainReader.batch_size=4", "epoch=2"]
        teacher = f"teacher.pretrain_weights={teacher_weights[family]}"
        return ["-c", config, "--slim_config", slim, *more, "-o", *values, teacher], tmp_path / name / f"{family}_tiny"

    return family, config, options


def test_a_run_that_is_stopped_goes_on_to_the_bit(given):
    family, _, options = given
    whole, first = options("whole", "--eval", "--max_steps", 4), options("parts", "--max_steps", 3)
    for arguments in (whole[0], first[0]):
        assert call("train", *arguments) == (0, "")
    second, folder = options("parts", "--eval", "--max_steps", 4, "-r", first[1] / "model_final")
    assert call("train", *second) == (0, "")
    states = [paddle.load(str(path / "model_final.pdparams"), return_numpy=True) for path in (whole[1], folder)]
    assert states[0].keys() == states[1].keys()
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    records = [json.loads(line) for line in (whole[1] / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if record["kind"] == "train"]
    terms = {key for record in trained for key in record if key.startswith("fgd.s")}
    levels = {key.split(".")[1] for key in terms}
    finest = 8 if family == "reppoints" else 4
    assert levels == {f"s{finest * 2**k}" for k in range(5)}
    assert any(FAMILIES[family][0] in record for record in records if record["kind"] == "eval")


def test_the_pair_is_examined(given, capsys):
    family, _, options = given
    arguments, _ = options("doctor")
    code, errors = call("doctor", *arguments)
    shown = capsys.readouterr().out + errors
    assert code in (0, 1) and "fgd.s8" in shown, shown[-500:]


def test_onnx_is_written_or_refused_with_the_reason(given, tmp_path, monkeypatch):
    family, config, options = given
    monkeypatch.setattr(onnx.metadata, "version", lambda name: onnx._RELEASE)
    name = {"reppoints": "RepPoints", "solo": "SOLO"}[family]
    if name not in onnx._UNCONVERTED[onnx._RELEASE]:
        pytest.skip("it is converted: tests/exporting has it")
    given = ["-c", config, "--onnx", "--output_dir", tmp_path / "graph"]
    code, errors = call("export_model", *given, "-o", "num_classes=3", f"weights={tmp_path}/none.pdparams")
    assert f"does not convert {name}: it " in the_error(code, errors)
    assert not (tmp_path / "graph").exists()
