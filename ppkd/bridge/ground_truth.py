"""Keeps the ground truth of a batch in one form, whatever a detector's reader makes of it."""

import numpy as np

# Transforms that turn boxes into something else, or drop them; names that begin with Gt2 do so too.
CONSUMERS = frozenset({"NormalizeBox", "BboxXYXY2XYWH", "PadBox", "PadGT", "PadRGT", "PadMaskBatch"})

BOXES, VALID, CLASSES, FRAME = "ppkd_boxes", "ppkd_boxes_valid", "ppkd_classes", "ppkd_frame"


def keep_ground_truth(batch_transforms, sample_transforms=None):
    """Insert steps into ppdet's batch transforms that copy boxes and classes before a head's targets replace them.

    Every batch then holds, zero padded to the batch's largest number M of boxes: `BOXES` (N, M, 4) float32 corners in
    pixels of the network input, `VALID` (N, M) float32, `CLASSES` (N, M) int64, and `FRAME` (N, 2) float32, height and
    width of the picture that the boxes are on, before the batch's padding. Readers differ (YOLOv3 gives relative
    centres, GFL and FCOS give none at all; ``im_shape`` is the file's size after a mosaic or ``PadResize``), and a loss
    should not have to know.

    Args:
        batch_transforms: ppdet's BatchCompose; changed in place.
        sample_transforms: ppdet's Compose, read only: boxes that it makes relative are brought back to pixels.
    """
    steps = batch_transforms.transforms_cls
    names = [type(step).__name__ for step in steps]
    place = next((i for i, n in enumerate(names) if n in CONSUMERS or n.startswith("Gt2")), len(steps))
    padding = next((i for i, n in enumerate(names) if n == "PadBatch"), len(steps))
    before = [type(step).__name__ for step in getattr(sample_transforms, "transforms_cls", ())]
    steps.insert(place, Keep("NormalizeBox" in before, "BboxXYXY2XYWH" in before))
    steps.insert(min(place, padding), _note_frame)


def _note_frame(samples):
    for sample in samples:
        if "image" in sample:
            shape = np.shape(sample["image"])
            size = np.array(shape[1:] if shape[0] == 3 else shape[:2], "float32")
            told = np.asarray(sample.get("im_shape", size), "float32")
            # Where a resize rounds, im_shape has the fraction.
            sample[FRAME] = told if (np.abs(told - size) < 1).all() else size
    return samples


class Keep:
    """The step that copies boxes; those that the reader made relative, or centres and sizes, are turned back."""

    def __init__(self, relative, centres):
        self._relative, self._centres = relative, centres

    def __call__(self, samples):
        if "gt_bbox" not in samples[0]:
            return samples
        most = max(len(sample["gt_bbox"]) for sample in samples)
        for sample in samples:
            count = len(sample["gt_bbox"])
            boxes, classes = np.zeros((most, 4), "float32"), np.zeros((most,), "int64")
            boxes[:count] = self._corners(sample)
            if "gt_class" in sample:
                classes[:count] = np.asarray(sample["gt_class"], "int64").reshape(-1)
            sample[BOXES], sample[CLASSES] = boxes, classes
            sample[VALID] = (np.arange(most) < count).astype("float32")
        return samples

    def _corners(self, sample):
        boxes = np.asarray(sample["gt_bbox"], "float32").reshape(-1, 4)
        if self._centres:
            boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        return boxes * np.tile(sample[FRAME][::-1], 2) if self._relative else boxes
