"""Detectors that are larger than any machine end in a line while they are built, not when the memory is full."""

import pytest

from ppkd.bridge import room
from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.files.yaml_io import merge
from ppkd.recipe import load_recipe


@pytest.mark.parametrize("more", [{"num_classes": 10**12}, {"PPYOLOEHead": {"reg_range": [0, 10**12]}}])
def test_a_detector_that_does_not_fit_into_the_memory_is_refused(more):
    student = load_recipe("tests/configs/ppyoloe_tiny.yml", overrides=["num_classes=3"]).student
    merge(student, more)
    with pytest.raises(UserError, match="does not fit into the memory"):
        build_detector(student)


@pytest.mark.parametrize("key", ["depth_mult=1e9", "CSPResNet.layers=[1, 1000000, 1, 1]"])
def test_a_detector_without_end_is_refused(monkeypatch, key):
    monkeypatch.setattr(room, "_TENSORS", 1000)
    student = load_recipe("tests/configs/ppyoloe_tiny.yml", overrides=["num_classes=3", key]).student
    with pytest.raises(UserError, match="more than 1000 parameters, which no detector has"):
        build_detector(student)


def test_the_memory_is_what_is_free_here_and_of_no_meaning_on_a_gpu(monkeypatch):
    assert 1e8 < room.free_memory() < 1e14
    monkeypatch.setattr("paddle.device.get_device", lambda: "gpu:0")
    assert room.free_memory() is None
