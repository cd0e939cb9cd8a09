"""Keeps the ground truth of a batch in one form, whatever a detector's reader makes of it."""

import numpy as np

# Transforms that turn boxes into something else, or drop them; names that begin with Gt2 do so too.
_CONSUMERS = frozenset({"NormalizeBox", "BboxXYXY2XYWH", "PadBox", "PadGT", "PadRGT", "PadMaskBatch"})

BOXES, VALID, CLASSES = "ppkd_boxes", "ppkd_boxes_valid", "ppkd_classes"


def keep_ground_truth(batch_transforms):
    """Insert a step into ppdet's batch transforms that copies boxes and classes before a head's targets replace them.

    Every batch then holds, zero padded to the batch's largest number M of boxes: `BOXES` (N, M, 4) float32 corners in
    pixels of the network input, `VALID` (N, M) float32, `CLASSES` (N, M) int64. Readers differ (YOLOv3 gives relative
    centres, GFL and FCOS give none at all), and a loss should not have to know.

    Args:
        batch_transforms: ppdet's BatchCompose; changed in place.
    """
    steps = batch_transforms.transforms_cls
    names = [type(step).__name__ for step in steps]
    place = next((i for i, n in enumerate(names) if n in _CONSUMERS or n.startswith("Gt2")), len(steps))
    steps.insert(place, _keep)


def _keep(samples):
    if "gt_bbox" not in samples[0]:
        return samples
    most = max(len(sample["gt_bbox"]) for sample in samples)
    for sample in samples:
        count = len(sample["gt_bbox"])
        boxes, classes = np.zeros((most, 4), "float32"), np.zeros((most,), "int64")
        boxes[:count] = np.asarray(sample["gt_bbox"], "float32").reshape(-1, 4)
        if "gt_class" in sample:
            classes[:count] = np.asarray(sample["gt_class"], "int64").reshape(-1)
        sample[BOXES], sample[CLASSES] = boxes, classes
        sample[VALID] = (np.arange(most) < count).astype("float32")
    return samples
