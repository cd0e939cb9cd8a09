"""Keeps the ground truth of a batch in one form, whatever a detector's reader makes of it."""

import numpy as np

# Transforms that turn boxes into something else, or drop them; names that begin with Gt2 do so too.
CONSUMERS = frozenset({"NormalizeBox", "BboxXYXY2XYWH", "PadBox", "PadGT", "PadRGT", "PadMaskBatch"})

BOXES, VALID, CLASSES, FRAME = "ppkd_boxes", "ppkd_boxes_valid", "ppkd_classes", "ppkd_frame"
_WARPED = "ppkd_warped"


def keep_ground_truth(batch_transforms, sample_transforms=None):
    """Insert steps into ppdet's batch transforms that copy boxes and classes before a head's targets replace them.

    Every batch then holds, zero padded to the batch's largest number M of boxes: `BOXES` (N, M, 4) float32 corners in
    pixels of the network input, `VALID` (N, M) float32, `CLASSES` (N, M) int64, and `FRAME` (N, 2) float32, height and
    width of the picture that the boxes are on, before the batch's padding. Readers differ (YOLOv3 gives relative
    centres, GFL and FCOS give none at all; ``im_shape`` is the file's size after a mosaic or ``PadResize``), and a loss
    should not have to know.

    Args:
        batch_transforms: ppdet's BatchCompose; changed in place.
        sample_transforms: ppdet's Compose: boxes that it makes relative are brought back to pixels; where it makes the
            targets of CenterNet, a step before that keeps the boxes.
    """
    steps = batch_transforms.transforms_cls
    names = [type(step).__name__ for step in steps]
    place = next((i for i, n in enumerate(names) if n in CONSUMERS or n.startswith("Gt2")), len(steps))
    padding = next((i for i, n in enumerate(names) if n == "PadBatch"), len(steps))
    before = [type(step).__name__ for step in getattr(sample_transforms, "transforms_cls", ())]
    if "Gt2CenterNetTarget" in before:
        sample_transforms.transforms_cls.insert(before.index("Gt2CenterNetTarget"), _keep_warped)
    steps.insert(place, Keep("NormalizeBox" in before, "BboxXYXY2XYWH" in before))
    steps.insert(min(place, padding), _note_frame)


def _keep_warped(sample):
    """CenterNet's reader warps the image alone: the boxes are still the file's, and its targets make an end of them."""
    from ppdet.modeling.keypoint_utils import get_affine_transform

    height, width = np.shape(sample["image"])[1:]
    warp = get_affine_transform(sample["center"], [sample["scale"]] * 2, 0, [width, height])
    corners = np.asarray(sample["gt_bbox"], "float32").reshape(-1, 2) @ warp[:, :2].T + warp[:, 2]
    boxes = np.clip(corners, 0, [width, height]).reshape(-1, 4)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    sample[_WARPED] = boxes[inside], np.asarray(sample["gt_class"]).reshape(-1)[inside]
    return sample


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
        found = [self._of(sample) for sample in samples]
        if found[0] is None:
            return samples
        most = max(len(boxes) for boxes, _ in found)
        for sample, (boxes, classes) in zip(samples, found):
            count = len(boxes)
            sample[BOXES], sample[CLASSES] = np.zeros((most, 4), "float32"), np.zeros((most,), "int64")
            sample[BOXES][:count] = boxes
            if classes is not None:
                sample[CLASSES][:count] = np.asarray(classes, "int64").reshape(-1)
            sample[VALID] = (np.arange(most) < count).astype("float32")
        return samples

    def _of(self, sample):
        """``(corners in pixels, classes or None)``, or None of a sample without boxes."""
        if _WARPED in sample:
            return sample.pop(_WARPED)
        return (self._corners(sample), sample.get("gt_class")) if "gt_bbox" in sample else None

    def _corners(self, sample):
        boxes = np.asarray(sample["gt_bbox"], "float32").reshape(-1, 4)
        if self._centres:
            boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        return boxes * np.tile(sample[FRAME][::-1], 2) if self._relative else boxes
