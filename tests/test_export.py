"""Exported detectors: what Paddle Inference and onnxruntime make of them, and what is refused with one line."""

import numpy as np
import pytest

from ppkd.export import write_static
from ppkd.workspace import build_detector
from tests.helpers_export import assert_equal, dynamic_outputs, evaluation_batch, infer, lively, open_predictor

DETECTORS = (
    "retinanet", "fcos", "gfl", "picodet", "tood", "ppyoloe", "yolov3", "yolox", "faster_rcnn", "mask_rcnn",
    "cascade_rcnn", "solov2",
)  # fmt: skip


@pytest.mark.parametrize("family", DETECTORS)
def test_paddle_inference_gives_what_the_detector_gives(family, recipe, tmp_path):
    loaded = recipe(family, distil=False)
    model = lively(build_detector(loaded.student), loaded)
    batch = evaluation_batch(loaded)
    if family == "cascade_rcnn":  # ppdet's own restriction: its graph does not tell the images of a batch apart
        batch = {name: value[:1] for name, value in batch.items()}
    expected = dynamic_outputs(model, batch)
    print(family, [e.shape for e in expected], expected[0][:6] if expected[0].ndim == 2 else expected[2][:6])
    folder = write_static(model, loaded, str(tmp_path))
    outputs = infer(open_predictor(folder), batch)
    assert_equal(outputs, expected)
