"""Heads that choose as MMDetection does: they train and export as ppdet's, and choose by its rules."""

import copy

import numpy as np
import paddle
import pytest

from ppkd.bridge.workspace import build_detector, import_ppdet
from ppkd.detectors import detector_for
from ppkd.exporting.static import write_static
from tests.conftest import training_batch
from tests.helpers_export import assert_equal, dynamic_outputs, evaluation_batch, infer, lively, open_predictor

import_ppdet()
from ppdet.modeling.layers import MultiClassNMS  # noqa: E402

from ppkd.models.of_mmdet import FCOSFeatOfMMDet, ResizeOfMMDet, _found  # noqa: E402

PARTS = {
    "retinanet": ("RetinaNet", {"head": "RetinaHead"}), "gfl": ("GFL", {"head": "GFLHead"}),
    "fcos": ("FCOS", {"fcos_head": "FCOSHead"}), "yolox": ("YOLOX", {"head": "YOLOXHead"}),
    "cascade_rcnn": ("CascadeRCNN", {"rpn_head": "RPNHead", "bbox_head": "CascadeHead"}),
}  # fmt: skip


def with_heads(config, family):
    """The config with our heads in the places of ppdet's."""
    kind, parts = PARTS[family]
    config = copy.deepcopy(config)
    config[kind] |= {place: f"{name}OfMMDet" for place, name in parts.items()}
    config |= {f"{name}OfMMDet": copy.deepcopy(config[name]) for name in parts.values()}
    if family == "fcos":
        config |= {"FCOSOfMMDet": config["FCOS"], "architecture": "FCOSOfMMDet"}
    return config


@pytest.mark.parametrize("family", PARTS)
def test_it_trains_as_ppdets_and_exports_what_it_finds(family, recipe, tmp_path):
    one_size = ["YOLOX.size_range=[2, 2]"] if family == "yolox" else []  # it draws the size of a batch
    loaded = recipe(family, distil=False, overrides=["EvalReader.batch_size=1", *one_size])
    plain = build_detector(loaded.student)
    loaded.student = with_heads(loaded.student, family)
    model = build_detector(loaded.student)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert set(detector_for(model).aliases()) == set(detector_for(plain).aliases())
    lively(model, loaded)
    plain.set_state_dict(model.state_dict())
    losses = []
    for one in (plain, model):
        one.train()
        paddle.seed(1)
        np.random.seed(1)
        losses.append({key: float(value) for key, value in one(training_batch(loaded)).items() if key != "size"})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) > 1
    model.set_state_dict(plain.state_dict())
    model.eval()
    batch = evaluation_batch(loaded)
    if family == "cascade_rcnn":  # the exported graph chooses its regions as ppdet does
        model.rpn_head._own_regions = model.rpn_head._regions_of_ppdet
    expected = dynamic_outputs(model, batch)
    assert len(expected[0]) and np.isfinite(expected[0]).all()
    boxes, size = expected[0][:, 2:], (batch["im_shape"] / batch["scale_factor"]).numpy()[0][::-1]
    if family != "yolox":
        assert (boxes >= 0).all() and (boxes <= np.tile(size, 2) + 1e-3).all(), "boxes lie in the image"
    folder = write_static(model, loaded, str(tmp_path))
    assert_equal(infer(open_predictor(folder), batch), expected)


def found(scores, factors=None, boxes=None):
    """What is found of places with boxes apart from each other; scores of each place and class."""
    scores = np.array(scores, "float32")[None]
    count = scores.shape[1]
    own = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(count)], "float32") if boxes is None else boxes
    nms = MultiClassNMS(score_threshold=0.3, nms_top_k=-1, keep_top_k=10, nms_threshold=0.5, return_index=True)
    tensors = [paddle.to_tensor(x) for x in (np.array(own, "float32")[None], scores)]
    factors = factors and [paddle.to_tensor(np.array(factors, "float32").reshape([1, -1, 1]))]
    size, scale = paddle.to_tensor([[50.0, 100.0]]), paddle.to_tensor([[0.5, 2.0]])
    rows, _, _ = _found(nms, [tensors[0]], [tensors[1]], size, scale, factors)
    return rows.numpy()


def test_a_factor_lowers_scores_that_are_high_enough_without_it():
    rows = found([[0.9, 0.0], [0.4, 0.0], [0.2, 0.9]], [0.5, 0.1, 1.0])
    np.testing.assert_allclose(rows[:, :2], [[0, 0.45], [0, 0.04], [1, 0.9]], atol=1e-6)


def test_boxes_end_with_the_image_and_those_outside_are_nothing():
    boxes = [[-5.0, -5.0, 200.0, 20.0], [10.0, 60.0, 20.0, 70.0], [99.0, 10.0, 120.0, 20.0]]
    rows = found([[0.9], [0.8], [0.7]], boxes=boxes)
    # The height was halved, the width doubled.
    np.testing.assert_allclose(rows[:, 2:], [[0, 0, 50, 40], [49.5, 20, 50, 40]], atol=1e-4)


def test_a_size_is_rounded_and_the_scale_goes_by_it():
    image = np.random.RandomState(0).randint(0, 255, [50, 71, 3]).astype("uint8")
    sample = {"image": image, "im_shape": np.array([50, 71], "float32"), "scale_factor": np.ones(2, "float32")}
    made = ResizeOfMMDet([60, 90])(sample)
    assert made["image"].shape == (60, 85, 3) and made["im_shape"].tolist() == [60, 85]
    np.testing.assert_allclose(made["scale_factor"], [60 / 50, 85 / 71])


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_convolution_of_both_towers_alone_is_deformable(count):
    towers = FCOSFeatOfMMDet(6, 32, count, "gn")
    deformable = {name.split(".")[0] for name, _ in towers.named_parameters() if "conv_offset" in name}
    assert deformable == {f"fcos_head_{tower}_tower_conv_{count - 1}" for tower in ("cls", "reg")}
    found = towers(paddle.randn([1, 6, 5, 5]))
    assert [x.shape for x in found] == [[1, 32, 5, 5]] * 2
    paddle.add_n(list(found)).sum().backward()
    assert all(p.grad is not None for name, p in towers.named_parameters() if "conv_offset" in name)
