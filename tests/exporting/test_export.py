"""Exported detectors: what Paddle Inference and onnxruntime make of them, and what is refused with one line."""

import importlib.util
import os
import pathlib
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import yaml

from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.exporting.onnx import _UNCONVERTED, check_onnx, write_onnx
from ppkd.exporting.onnx_names import output_names
from ppkd.exporting.static import write_static
from tests.conftest import CONFIGS
from tests.helpers_export import (
    assert_equal,
    by_class_and_score,
    dynamic_outputs,
    evaluation_batch,
    infer,
    infer_onnx,
    lively,
    open_predictor,
)
from tests.helpers_tools import call, the_error
from tests.helpers_training import PADDLE, fit

DETECTORS = (
    "retinanet", "fcos", "gfl", "picodet", "tood", "ppyoloe", "yolov3", "yolox", "faster_rcnn", "mask_rcnn",
    "cascade_rcnn", "solov2", "rtmdet", "reppoints", "solo",
)  # fmt: skip
GRAPH = "model.json" if PADDLE >= 3 else "model.pdmodel"


@pytest.fixture(scope="module")
def known():
    """Family -> (state dict, batch, what the detector gives for it), for tests that need the same detector."""
    return {}


@pytest.fixture
def detector(recipe, known):
    """Function: family -> (recipe, a detector with something to detect, batch, what it gives)."""

    def make(family, overrides=()):
        loaded = recipe(family, distil=False, overrides=overrides)
        model = build_detector(loaded.student)
        if family not in known:
            lively(model, loaded, noise={"solov2": 0.25, "rtmdet": 2.0}.get(family, 0.5))
            batch = evaluation_batch(loaded)
            if family == "cascade_rcnn":  # ppdet's graph of it does not tell the images of a batch apart
                batch = first_image(batch)
            known[family] = model.state_dict(), batch, dynamic_outputs(model, batch)
        state, batch, expected = known[family]
        model.set_state_dict(state)
        model.eval()
        return loaded, model, batch, expected

    return make


def first_image(batch):
    return {name: value[:1] for name, value in batch.items()}


def assert_detections(outputs):
    """Several detections of several scores: otherwise equal outputs would say little."""
    scores = outputs[0][:, 1] if outputs[0].ndim == 2 else outputs[2]
    assert len(scores) >= 10 and scores.max() - scores.min() > 1e-4 and np.isfinite(scores).all()


@pytest.mark.parametrize("family", DETECTORS)
def test_paddle_inference_gives_what_the_detector_gives(family, detector, tmp_path):
    loaded, model, batch, expected = detector(family)
    assert_detections(expected)
    folder = write_static(model, loaded, str(tmp_path))
    files = {path.name for path in pathlib.Path(folder).iterdir()} - {"model.pdiparams.info"}
    assert files == {GRAPH, "model.pdiparams", "infer_cfg.yml"}
    assert_equal(infer(open_predictor(folder), batch), expected)


@pytest.mark.parametrize("family", DETECTORS)
def test_onnxruntime_gives_what_the_detector_gives(family, detector, tmp_path):
    pytest.importorskip("paddle2onnx", reason="paddle2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    loaded, model, batch, _ = detector(family)
    unconverted = _UNCONVERTED["2.1.0" if PADDLE >= 3 else "1.3.1"]
    if loaded.student["architecture"] in unconverted:
        with pytest.raises(UserError, match="does not convert .*: it .* Leave out --onnx"):
            check_onnx(loaded.student)
        return
    check_onnx(loaded.student)
    assert_onnx_equal(model, loaded, batch, tmp_path)


def assert_onnx_equal(model, loaded, batch, folder):
    batch = first_image(batch)
    expected = dynamic_outputs(model, batch)
    assert_detections(expected)
    names = sorted(model(dict(batch)))
    write_onnx(model, loaded, str(folder / "model.onnx"), 16)
    found = infer_onnx(folder / "model.onnx", batch)
    assert list(found) == names, "what ppdet calls them"
    assert_equal(by_class_and_score(list(found.values())), by_class_and_score(expected))


def test_all_boxes_are_not_none_to_onnx(detector, tmp_path):
    pytest.importorskip("paddle2onnx", reason="paddle2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    loaded, model, batch, _ = detector("ppyoloe")
    model.yolo_head.nms.nms_top_k = model.yolo_head.nms.keep_top_k = -1
    assert_onnx_equal(model, loaded, batch, tmp_path)


def test_the_exported_student_of_a_distillation_is_the_plain_detector(recipe, shapes, tmp_path):
    loaded = recipe("yolov3", "yolov3", overrides=["use_ema=false"])
    weights = os.path.join(fit(loaded, max_steps=2).recipe.output_dir, "model_final.pdparams")
    given = ["-c", CONFIGS / "yolov3_tiny.yml", "-o", f"dataset_dir={shapes}"]
    output = tmp_path / "deployed"
    folder = output / "yolov3_tiny"
    onnx = ["--onnx"] if importlib.util.find_spec("paddle2onnx") else []
    assert call("export_model", *given, f"weights={weights}", "--output_dir", output, *onnx) == (0, "")
    assert (folder / "model.onnx").exists() == bool(onnx)
    (folder / "notes.txt").write_text("mine")
    assert call("export_model", *given, f"weights={weights}", "--output_dir", output) == (0, "")
    # The former model.onnx is gone with the model that it was made of; what an export does not write stays.
    assert {path.name for path in folder.iterdir()} - {"model.pdiparams.info"} == {
        GRAPH, "model.pdiparams", "infer_cfg.yml", "notes.txt",
    }  # fmt: skip
    assert [path.name for path in output.iterdir()] == ["yolov3_tiny"], "nothing temporary stays"
    plain = build_detector(recipe("yolov3", distil=False).student)
    assert plain.set_state_dict(paddle.load(weights)) == ([], [])
    plain.eval()
    batch = evaluation_batch(loaded)
    expected = dynamic_outputs(plain, batch)
    assert len(expected[0]) > 0
    assert_equal(infer(open_predictor(folder), batch), expected)
    settings = yaml.safe_load((folder / "infer_cfg.yml").read_text())
    assert settings["arch"] == "YOLO" and settings["label_list"][:2] == ["disc", "square"]
    assert [step["type"] for step in settings["Preprocess"]] == ["Resize", "NormalizeImage", "Permute", "PadStride"]


@pytest.mark.parametrize("family", ["yolov3", "rtmdet"])
def test_height_and_width_may_be_left_open(family, detector, tmp_path):
    loaded, model, batch, _ = detector(family, ["TestReader.inputs_def.image_shape=[3,-1,-1]"])
    batch = dict(batch, image=paddle.concat([batch["image"], batch["image"][:, :, :, :32]], axis=3))
    expected = dynamic_outputs(model, batch)
    folder = write_static(model, loaded, str(tmp_path))
    assert_equal(infer(open_predictor(folder), batch), expected)


def test_the_switches_of_the_config_are_followed(detector, tmp_path):
    switches = [f"export.{name}={value}" for name, value in
                {"post_process": True, "nms": False, "benchmark": False, "fuse_conv_bn": True}.items()]  # fmt: skip
    loaded, model, batch, _ = detector("picodet", switches)
    model.export_nms = False
    expected = dynamic_outputs(model, batch)
    assert [x.shape for x in expected] == [(4, 84, 4), (4, 6, 84)], "boxes and scores as they were before NMS"
    folder = write_static(model, loaded, str(tmp_path))
    assert_equal(infer(open_predictor(folder), batch), expected)


@pytest.mark.skipif(PADDLE < 3, reason="Paddle 2 runs it")
def test_onednn_of_paddle_3_does_not_run_interpolations(detector, tmp_path):
    """Once this fails, docs/export.md need no longer tell to turn oneDNN off."""
    loaded, model, batch, _ = detector("gfl")
    predictor = open_predictor(write_static(model, loaded, str(tmp_path)), onednn=True)
    with pytest.raises(NotImplementedError, match="DoubleAttribute"):
        infer(predictor, batch)


@pytest.mark.parametrize(
    "given, message",
    [
        (["-o"], "no weights: give them with -o weights=PATH_OR_URL"),
        (["-o", "weights=nowhere"], "weights: no file nowhere or nowhere.pdparams"),
        (["-o", "weights"], "-o 'weights': expected key=value"),
        (["-o", "export.nmss=false"], "export: no switch 'nmss'; nearest: nms"),
        (["-o", "TestReader.inputs_def.image_shape=64"], "image_shape: 64 is no shape"),
        (["-o", "TestReader.inputs_def.image_shape=[3,0,64]"], "image_shape: [3, 0, 64] is no shape"),
        (["-o", "TestReader.inputs_def.image_shape=[1,64,64]"], "image_shape: [1, 64, 64] is no shape"),
        (["-o", "TestReader.inputs_def.image_shape=[64,64,3]"], "image_shape: [64, 64, 3] is no shape"),
        (["-o", "TestReader.inputs_def.image_shape=[3,-1,-1]", "--onnx"], "--onnx: paddle2onnx has to know the size"),
        (["-o", "architecture=QueryInst"], "ppdet does not export QueryInst, only "),
        (["-o", "weights=nowhere", "--output_dir", "/proc/version/below"], "/proc/version is a file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(given, message, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = the_error(*call("export_model", "-c", CONFIGS / "yolov3_tiny.yml", "-o", f"dataset_dir={shapes}", *given))
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_leaves_the_former_one(recipe, shapes, tmp_path, monkeypatch):
    loaded = recipe("yolov3", distil=False)
    paddle.save(build_detector(loaded.student).state_dict(), str(tmp_path / "model.pdparams"))
    former = tmp_path / "output_inference" / "yolov3_tiny" / GRAPH
    former.parent.mkdir(parents=True)
    former.write_text("former")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paddle.jit, "save", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("export_model", "-c", CONFIGS / "yolov3_tiny.yml", "-o", f"dataset_dir={shapes}", "weights=model")
    assert [path.name for path in former.parent.parent.iterdir()] == ["yolov3_tiny"]
    assert [path.name for path in former.parent.iterdir()] == [GRAPH] and former.read_text() == "former"


@pytest.mark.parametrize("model, count, names", [
    ({}, 2, ("bbox", "bbox_num")), ({}, 3, None), ({"mask_head": 1}, 3, ("bbox", "bbox_num", "mask")),
    ({"export_nms": False}, 2, ("bbox", "scores")), ({"export_post_process": False}, 2, None),
])  # fmt: skip
def test_outputs_of_an_unknown_kind_keep_their_names(model, count, names):
    assert output_names(SimpleNamespace(**model), count) == names


@pytest.mark.parametrize("found, told", [(None, "there is none"), ("0.9", "here is 0.9")])
def test_a_missing_or_wrong_paddle2onnx_is_told(found, told, recipe, monkeypatch):
    from ppkd.exporting import onnx as onnx_export

    def version(name):
        if found is None:
            raise onnx_export.metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(onnx_export.metadata, "version", version)
    with pytest.raises(UserError, match=f"needs paddle2onnx .*, and {told}: pip install --no-deps paddle2onnx=="):
        check_onnx(recipe("yolov3", distil=False).student)
