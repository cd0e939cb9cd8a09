"""compat/centernet_classes.py is needed: readers make targets of 80 classes. And the boxes are kept from them."""

import numpy as np
import pytest

from ppkd.bridge.ground_truth import BOXES, CLASSES, VALID, keep_ground_truth
from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import cured


def test_upstream_has_no_place_for_the_count():
    import_ppdet()
    from ppdet.data.transform.batch_operators import Gt2CenterNetTarget

    assert ("num_classes" in vars(Gt2CenterNetTarget)) == cured("count_classes_of_centernet")


@pytest.mark.parametrize("count", [1, 3, 81])
def test_a_readers_targets_have_as_many_classes_as_the_data_set(count):
    import_ppdet()
    from ppdet.data.reader import Compose

    sample = {
        "image": np.zeros((3, 64, 64), "float32"), "gt_bbox": np.array([[8.0, 8.0, 40.0, 40.0]], "float32"),
        "gt_class": np.array([[count - 1]], "int32"), "center": np.array([32.0, 32.0]), "scale": 64.0,
        "im_id": np.array([0]), "im_file": "x.jpg", "curr_iter": 0,
    }  # fmt: skip
    made = Compose([{"Gt2CenterNetTarget": {"down_ratio": 4, "max_objs": 5}}], num_classes=count)(sample)
    assert made["heatmap"].shape == (count, 16, 16)
    assert made["heatmap"][count - 1].max() == 1


@pytest.mark.parametrize("box", [[8, 8, 40, 30], [60, 4, 95, 44]])
def test_boxes_stand_where_the_targets_of_centernet_have_their_peak(box):
    import_ppdet()
    from ppdet.data.reader import BatchCompose, Compose

    warp = {"keep_res": False, "input_h": 64, "input_w": 64, "use_random": False}
    steps = [{"FlipWarpAffine": warp}, {"Permute": {}}, {"Gt2CenterNetTarget": {"down_ratio": 4, "max_objs": 5}}]
    first, batch = Compose(steps, num_classes=2), BatchCompose([], num_classes=2)
    keep_ground_truth(batch, first)
    sample = {
        "image": np.zeros((48, 96, 3), "float32"), "gt_bbox": np.array([box], "float32"), "h": 48, "w": 96,
        "gt_class": np.array([[1]], "int32"), "im_id": np.array([0]), "im_file": "x.jpg", "curr_iter": 0,
    }  # fmt: skip
    kept = first(sample)
    for step in batch.transforms_cls:
        [kept] = step([kept])
    middle = (kept[BOXES][0, :2] + kept[BOXES][0, 2:]) / 2
    peak = np.unravel_index(kept["heatmap"][1].argmax(), (16, 16))[::-1]
    assert list(middle // 4) == list(peak) and kept[CLASSES].tolist() == [1] and kept[VALID].tolist() == [1]
    assert np.ptp(kept[BOXES][0, ::2]) == pytest.approx((box[2] - box[0]) * 64 / 96, abs=0.1)
