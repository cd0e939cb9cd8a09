"""Detectors of MMDetection and distillers' checkpoints of them: names, orders, and what does not fit."""

import numpy as np
import pytest

from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.files import mmdet
from ppkd.files.foreign import _part_of, take_weights
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT, SHARED

FOLDER = SHARED / "golden" / "mmdet"
there = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


def build(config, *overrides):
    path = str(ROOT / "configs" / f"{config}.yml")
    return build_detector(load_recipe(path, overrides=["pretrain_weights=null", *overrides]).student)


@there
@pytest.mark.parametrize(
    "name, said",
    [
        ("retinanet_r50", "RetinaNet of MMDetection with 3 classes on a ResNet or ResNeXt of 50 layers, but -c is GFL"),
        ("solo_r50", "SOLO of MMDetection with 3 classes, but -c is GFL; begin with configs/solo/"),
        ("gfl_r50", r"with \[1, 1, 1, 1\] blocks in its stages, but -c has \[3, 4, 6, 3\]: set ResNet.depth"),
    ],
)
def test_another_architecture_or_depth_is_told_in_a_line(name, said):
    with pytest.raises(UserError, match=said) as error:
        take_weights(str(FOLDER / f"{name}.pth"), build("gfl/gfl_r50_fpn_1x_coco", "num_classes=3"))
    assert "\n" not in str(error.value)


def test_anchors_change_their_order_from_ratios_first_to_sizes_first():
    # Each channel is called by its ratio, its size, and what it predicts.
    names = np.array([[[100 * r + 10 * s + c for c in range(2)] for s in range(3)] for r in range(3)], "float32")
    arrays = {f"head.retina_{kind}.{own}": names.reshape(-1) for kind in ("cls", "reg") for own in ("weight", "bias")}
    mmdet._by_size_first(arrays)
    for array in arrays.values():
        assert array.tolist() == [100 * r + 10 * s + c for s in range(3) for r in range(3) for c in range(2)]


class Shaped:
    def __init__(self, *shape):
        self.shape = list(shape)


def test_a_deformable_convolution_without_weights_gets_weights_of_one():
    arrays = {"b.conv_offset.weight": np.ones([18, 4, 3, 3], "float32"), "b.conv_offset.bias": np.ones(18, "float32")}
    mmdet._modulate(arrays, {"b.conv_offset.weight": Shaped(27, 4, 3, 3), "b.conv_offset.bias": Shaped(27)})
    weight, bias = arrays["b.conv_offset.weight"], arrays["b.conv_offset.bias"]
    assert weight.shape == (27, 4, 3, 3) and (weight[:18] == 1).all() and not weight[18:].any()
    assert (1 / (1 + np.exp(-bias[18:])) == 1).all() and (bias[:18] == 1).all()


def test_maps_that_a_distiller_recorded_are_no_part_of_a_detector():
    whole = dict.fromkeys(
        ["student.neck.a", "student.student.b", "teacher.neck.a", "student_neck_fpn_convs_0_conv", "distill_losses.c"]
    )
    parts = {"student": "student.", "teacher": "teacher."}
    state, left = _part_of(whole, "FGD or MGD", parts, "distill_losses.", "student")
    assert list(state) == ["neck.a", "student.b"], "one prefix is removed, once"
    assert left == {"teacher": 1, "distill_losses": 1, "other tensors": 1}
    state, left = _part_of(whole, "FGD or MGD", parts, "distill_losses.", "teacher")
    assert list(state) == ["neck.a"] and left["student"] == 2
    with pytest.raises(UserError, match="but no teacher"):
        _part_of({"student.a": None}, "FGD or MGD", parts, "distill_losses.", "teacher")
