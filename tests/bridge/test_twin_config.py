"""compat/twin_config.py is needed: PP-YOLOE's distillation mode keeps its first targets and breaks evaluation."""

import paddle
import pytest

from ppkd.bridge.compat.twin_config import without_twin
from ppkd.bridge.workspace import build_detector, create, scope
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, training_batch
from tests.engine.test_against_ppdet_slim import as_twin
from tests.helpers_training import count_calls

PARTS = {"backbone": "CSPResNet", "neck": "CustomCSPPAN", "yolo_head": "PPYOLOEHead"}


@pytest.fixture
def loaded(shapes):
    return load_recipe(str(CONFIGS / "ppyoloe_tiny.yml"), None, [f"dataset_dir={shapes}"])


def _as_upstream(config):
    with scope(config):
        return create(config["architecture"])


def _assigned_in_two_steps(model, batch):
    calls = count_calls(model.yolo_head.assigner)
    model.train()
    for _ in range(2):
        model({**batch, "epoch_id": 1})
    return len(calls)


def test_the_mode_keeps_its_first_targets_and_is_off_here(loaded):
    """Once upstream's assigner runs in every step, it has mended it and this half of the patch can go."""
    config, batch = {**loaded.student, **as_twin(loaded.student)}, training_batch(loaded)
    assert _assigned_in_two_steps(_as_upstream(config), batch) == 1
    assert _assigned_in_two_steps(build_detector(config), batch) == 2


def test_the_default_post_processing_breaks_and_is_off_here(loaded):
    """Once upstream evaluates with it, it has mended it and this half of the patch can go."""
    config = {**loaded.student, "architecture": "PPYOLOE", "PPYOLOE": PARTS}
    batch = {"image": paddle.rand([1, 3, 64, 64]), "im_shape": paddle.full([1, 2], 64.0)}
    batch["scale_factor"] = paddle.ones([1, 2])
    models = _as_upstream(config), build_detector(config)
    for model in models:
        model.eval()
    with pytest.raises(AttributeError, match="mask_anchors"):
        models[0](dict(batch))
    assert set(models[1](dict(batch))) == {"bbox", "bbox_num"}


def test_what_the_file_says_itself_stays():
    config = {"architecture": "PPYOLOE", "PPYOLOE": {"post_process": "Own", **PARTS}, "for_distill": True, "epoch": 3}
    expected = {"post_process": "Own", **PARTS, "for_distill": False}
    assert without_twin(config) == {**config, "for_distill": False, "PPYOLOE": expected}
    assert config["for_distill"] is True
    other = {"architecture": "YOLOv3", "for_distill": True}
    assert without_twin(other) is other
