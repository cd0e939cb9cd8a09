"""Boxes and the picture that they are on, whatever a reader does to either."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ppkd.bridge.ground_truth import BOXES, FRAME, keep_ground_truth
from ppkd.bridge.normalisation import Normalisation, Translation
from ppkd.detectors.context import Context
from ppkd.losses.masks import box_masks

CORNERS = [16.0, 8.0, 48.0, 24.0]


def batch_of(sample_transforms, batch_transforms=(), height=32, width=64):
    """A batch of one picture of 32 x 64 pixels with a white object on black, as ppdet's transforms make it."""
    from ppdet.data.transform import batch_operators, operators

    def made(name, **options):
        return (getattr(operators, name, None) or getattr(batch_operators, name))(**options)

    image = np.zeros((height, width, 3), "float32")
    image[8:24, 16:48] = 255
    sample = {
        "image": image, "im_shape": np.array([height, width], "float32"), "scale_factor": np.ones(2, "float32"),
        "gt_bbox": np.array([CORNERS], "float32"), "gt_class": np.array([[0]]), "h": height, "w": width,
    }  # fmt: skip
    per_sample = [made(name, **options) for name, options in sample_transforms]
    for step in per_sample:
        sample = step(sample, {})
    steps = SimpleNamespace(transforms_cls=[made(name, **options) for name, options in batch_transforms])
    keep_ground_truth(steps, SimpleNamespace(transforms_cls=per_sample))
    samples = [sample]
    for step in steps.transforms_cls:
        samples = step(samples)
    return {key: paddle.to_tensor(np.stack([s[key] for s in samples])) for key in ("image", "im_shape", BOXES, FRAME)}


PERMUTE, PAD = ("Permute", {}), ("PadBatch", {"pad_to_stride": 32})
RELATIVE, CENTRES = ("NormalizeBox", {}), ("BboxXYXY2XYWH", {})
READERS = {
    "as it is": ([PERMUTE], []),
    "resized and padded, and im_shape is the file's": ([("PadResize", {"target_size": [96, 96]}), PERMUTE], []),
    "resized and padded, permuted in the batch": ([("PadResize", {"target_size": [96, 96]})], [PERMUTE]),
    "relative boxes": ([RELATIVE, PERMUTE], []),
    "relative centres and sizes": ([RELATIVE, CENTRES, PERMUTE], []),
    "relative centres, on an enlarged picture": (
        [("PadResize", {"target_size": [128, 128]}), RELATIVE, CENTRES, PERMUTE], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_masks_lie_on_the_objects(name):
    batch = batch_of(*READERS[name])
    context = Context({**batch, "ppkd_boxes_valid": paddle.ones([1, 1])})
    size = batch["image"].shape[2:]
    mask, _ = box_masks(context.boxes, context.boxes_valid, context.image_size, size)
    mask, there = mask[0].numpy() > 0, batch["image"][0, 0].numpy() > 200
    overlap = (mask & there).sum() / (mask | there).sum()
    assert overlap > 0.85, overlap  # the authors' masks take in the cells that a box's edge touches


def test_padding_of_the_batch_is_no_part_of_the_picture():
    batch = batch_of([PERMUTE], [PAD], height=40, width=64)
    assert batch["image"].shape[2:] == [64, 64] and batch[FRAME].tolist() == [[40, 64]]


def test_a_teachers_padding_stays_zero_where_im_shape_is_the_files():
    batch = batch_of([("PadResize", {"target_size": [24, 48]}), PERMUTE], [PAD])
    assert batch["im_shape"].tolist() == [[32, 64]] and batch[FRAME].tolist() == [[24, 48]]
    moved = Translation(Normalisation(1.0), Normalisation(1.0, (5.0, 5.0, 5.0)))(batch)["image"].numpy()
    assert not moved[0, :, 24:].any() and not moved[0, :, :, 48:].any() and (moved[0, :, :24, :48] != 0).all()
