"""ppdet's losses and targets raise on images without boxes, which training data of one's own does have."""

import contextlib
import inspect
from functools import partial

import numpy as np
import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, numbers_returned, refuses_nothing, says
from ppkd.bridge.compat.wrapping import wrap


def return_all_of_an_empty_assignment():
    """Let the assigners of PP-YOLOE return as many values for a batch without any box as they do otherwise.

    Their early exit leaves out the mask of positives, "not enough values to unpack (expected 4, got 3)", or has one
    that nobody takes, "too many values to unpack (expected 3)".

    Needed for: paddledet 2.6.0 (`ATSSAssigner`, `TaskAlignedAssigner`) on every Paddle, and clones of release/2.6,
    where it is the other way round. Later clones return three always, and their heads take three.
    """
    from ppdet.modeling.assigners import ATSSAssigner, TaskAlignedAssigner

    unequal = {}
    for assigner in (ATSSAssigner, TaskAlignedAssigner):
        counts = numbers_returned(assigner.forward)
        if counts and counts[0] != counts[-1]:  # the early exit stands first
            unequal[assigner] = counts[-1]
    for assigner, count in unequal.items():
        wrap(assigner, "forward", _with_as_many(count))
    return None if unequal else NOT_NEEDED


def _with_as_many(count):
    def around(forward):
        def with_as_many(*args, **kwargs):
            assigned = forward(*args, **kwargs)
            if len(assigned) == count - 1:
                batch, anchors = assigned[0].shape
                assigned = (*assigned, paddle.zeros([batch, 1, anchors]))
            return assigned[:count]

        return with_as_many

    return around


def encode_no_boxes():
    """Let RetinaNet encode the boxes of an image that has none.

    ``bbox2delta`` stacks tensors without elements, which Paddle 2 refuses.

    Needed for: Paddle 2.6 (3.x stacks them).
    """
    from ppdet.modeling.heads import retina_head

    if not refuses_nothing("stack"):
        return NOT_NEEDED
    wrap(retina_head, "bbox2delta", _or_nothing)


def _or_nothing(encode):
    def or_nothing(boxes, targets, *args, **kwargs):
        return encode(boxes, targets, *args, **kwargs) if boxes.shape[0] else paddle.zeros([0, 4])

    return or_nothing


def learn_from_background_alone():
    """Let RetinaNet take a step on a batch without any box: all anchors are background, and there is no box loss.

    Its own loss concatenates tensors without elements, which Paddle 2 refuses.

    Needed for: Paddle 2.6 and 3.0 (3.2 and later concatenate them).
    """
    from ppdet.modeling.heads.retina_head import RetinaHead

    if not refuses_nothing("concat"):
        return NOT_NEEDED
    wrap(RetinaHead, "get_loss", _or_background)


def _or_background(get_loss):
    def or_background(self, outputs, targets):
        if any(boxes.shape[0] for boxes in targets["gt_bbox"]):
            return get_loss(self, outputs, targets)
        logits, deltas = outputs
        rows = paddle.concat([x.transpose([0, 2, 3, 1]).reshape([-1, self.num_classes]) for x in logits])
        background = paddle.full([rows.shape[0]], self.num_classes, dtype="int64")
        loss = self.loss_class(rows, background, reduction="sum")
        none = sum(x.sum() for x in deltas) * 0.0  # zero, and yet a path to the box branch for data parallel
        return {"loss_cls": loss, "loss_reg": none, "loss": loss + none}

    return or_background


def make_fcos_targets_of_no_boxes():
    """Let FCOS's targets of an image without a box be background everywhere.

    They take the smallest of no boxes: "zero-size array to reduction operation minimum which has no identity".

    Needed for: PaddleDetection's wheel and clones up to October 2024 (`Gt2FCOSTarget`).
    """
    from ppdet.data.transform.batch_operators import Gt2FCOSTarget

    box = {"gt_bbox": np.zeros([0, 4], "float32"), "gt_class": np.zeros([0, 1], "int32")}
    with contextlib.suppress(ValueError):
        make, sample = Gt2FCOSTarget([16], 1.5, [8, 16]), box | {"image": np.zeros([3, 16, 16])}
        inspect.unwrap(Gt2FCOSTarget.__call__)(make, [sample])
        return NOT_NEEDED
    wrap(Gt2FCOSTarget, "__call__", _with_a_point_for_a_box)


def _with_a_point_for_a_box(make):
    def with_a_point(self, samples, context=None):
        for sample in samples:
            if len(sample["gt_bbox"]) == 0:
                # No location lies inside of a box without area.
                sample["gt_bbox"] = np.zeros([1, 4], "float32")
                sample["gt_class"] = np.zeros([1, 1], "int32")
        return make(self, samples, context)

    return with_a_point


def pad_no_masks():
    """Let images without a mask be padded beside others: the readers of SOLOv2, Mask-RT-DETR and PP-YOLOE-seg.

    Their array of masks has neither height nor width: "could not broadcast input array from shape (0,)".

    Needed for: PaddleDetection's wheel and clones up to October 2024 (`PadBatch`, and `PadMaskBatch` and `PadGT` of
    those that have them for masks, after `Poly2Mask`).
    """
    from ppdet.data.transform import batch_operators

    unable = [kind for kind in map(partial(getattr, batch_operators), _PADDING) if not _pads_no_masks(kind)]
    for kind in unable:
        wrap(kind, "__call__", _with_size_of_no_masks)
    return None if unable else NOT_NEEDED


_PADDING = ("PadBatch", "PadMaskBatch", "PadGT")


def _pads_no_masks(kind):
    image, nothing = np.zeros([3, 8, 8], "float32"), np.zeros([0], "uint8")
    without, beside = ({"image": image, "gt_bbox": np.zeros([n, 4]), "gt_class": np.zeros([n, 1])} for n in (0, 1))
    samples = [without | {"gt_segm": nothing}, beside | {"gt_segm": np.zeros([1, 8, 8], "uint8")}]
    with contextlib.suppress(ValueError):
        masks = inspect.unwrap(kind.__call__)(kind(), samples)[0]["gt_segm"]
        return masks is nothing or masks.shape[-2:] == (8, 8)  # those that know nothing of masks leave them as they are
    return False


def _with_size_of_no_masks(pad):
    def with_size(self, samples, context=None):
        for sample in samples:
            masks = sample.get("gt_segm") if isinstance(sample, dict) else None
            if masks is not None and len(masks) == 0:
                sample["gt_segm"] = np.zeros([0, *sample["image"].shape[1:]], "uint8")
        return pad(self, samples, context)

    return with_size


def pad_a_box_where_there_is_none():
    """Let PP-YOLOE-seg take a step on a batch without any box: each image gets one that does not count.

    Its head stacks masks without elements, which Paddle 2 refuses, and its assigner's early exit gives three values to
    four: "not enough values to unpack (expected 4, got 3)".

    Needed for: clones of PaddleDetection up to October 2024; not for the wheel, which has no such head.
    """
    from ppdet.data.transform.batch_operators import PadGT
    from ppdet.modeling import heads
    from ppdet.modeling.assigners import TaskAlignedAssigner

    counts = numbers_returned(TaskAlignedAssigner.forward) or [0]
    takes_it = counts[0] == max(counts) and not refuses_nothing("stack")
    if not hasattr(heads, "PPYOLOEInsHead") or takes_it:
        return NOT_NEEDED
    wrap(PadGT, "__call__", _with_a_box_that_does_not_count)


def _with_a_box_that_does_not_count(pad):
    def with_a_box(self, samples, context=None):
        samples = pad(self, samples, context)
        for sample in samples:
            if "gt_segm" in sample and len(sample["gt_bbox"]) == 0:
                for name in _OF_A_BOX & set(sample):
                    sample[name] = np.zeros([1, *sample[name].shape[1:]], sample[name].dtype)
        return samples

    return with_a_box


_OF_A_BOX = {"gt_bbox", "gt_class", "gt_segm", "gt_score", "pad_gt_mask", "is_crowd", "difficult"}


def learn_fcos_background_alone():
    """Let FCOS take a step on a batch without a positive location: all is background, and nothing else is learned.

    Its loss divides by the number of positives: NaN.

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.losses import FCOSLoss

    if not says(FCOSLoss, r"num_positive_fp32 = paddle\.sum\(mask_positive_float\)\s"):
        return NOT_NEEDED
    wrap(FCOSLoss, "forward", _or_fcos_background)


def _or_fcos_background(forward):
    def or_background(self, classes, boxes, quality, labels, *targets):
        # To look whether there is a positive would make the host wait for the device. Instead a level of one location
        # is added that is predicted perfectly, so that it costs nothing, and is positive where no other is.
        none = paddle.stack([(level > 0).any() for level in labels]).any().logical_not().reshape([1, 1, 1, 1])
        sure, count = 50.0 * (2.0 * none.astype("float32") - 1.0), classes[0].shape[1]
        scores = paddle.concat([sure, paddle.full([1, count - 1, 1, 1], -50.0)], axis=1) if count > 1 else sure
        box, one = paddle.ones([1, 4, 1, 1]), paddle.ones([1, 1, 1, 1])
        predicted = ((classes, scores), (boxes, box), (quality, 50.0 * one))
        wanted = ((labels, none.astype(labels[0].dtype)), (targets[0], box.reshape([1, 1, 1, 4])), (targets[1], one))
        return forward(self, *([*levels, one_more] for levels, one_more in (*predicted, *wanted)))

    return or_background


def learn_solov2_background_alone():
    """Let SOLOv2 take a step on a batch without a mask: all cells are background, and no mask is learned.

    Its loss joins what no level has ("must be list of Tensors, but got empty list"), or divides by the number of masks
    that are left after they are made smaller: NaN.

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.losses import SOLOv2Loss

    if not says(SOLOv2Loss, r"concat\(loss_ins\)\) / total_weights\s"):
        return NOT_NEEDED
    wrap(SOLOv2Loss, "__call__", _or_solov2_background)


def _or_solov2_background(call):
    def or_background(self, masks, targets, *classes):
        # As for FCOS without looking: a mask of one cell is added that counts where no other does.
        found = [target.astype("float32").max() for target in targets if target is not None and target.size]
        some = paddle.stack(found).max() if found else paddle.zeros([])
        none = (some <= 0).astype("float32")
        masks, targets = [*masks, paddle.ones([1, 1, 1])], [*targets, none.reshape([1, 1, 1])]
        loss_masks, loss_class = call(self, masks, targets, *classes)
        return loss_masks * (1.0 - none), loss_class

    return or_background


def learn_picodet_background_alone():
    """Let PicoDet take a step on a batch without any box: all is background, and no box is learned.

    Its loss divides by the sum of the targets' scores: NaN. Under data parallel it takes the ranks' mean of that sum,
    and at least 1, so there nothing is changed.

    Needed for: PaddleDetection's wheel and clones up to October 2024 (`PicoHeadV2`).
    """
    from ppdet.modeling.heads.pico_head import PicoHeadV2

    if not says(PicoHeadV2.get_loss, r"avg_factor = flatten_assigned_scores\.sum\(\)\s"):
        return NOT_NEEDED
    wrap(PicoHeadV2, "get_loss", _or_picodet_background)


def _or_picodet_background(get_loss):
    def or_background(self, outputs, truth):
        # Boxes are padded to the batch's largest number of them, which the host knows.
        if paddle.distributed.get_world_size() > 1 or 0 not in truth["pad_gt_mask"].shape:
            return get_loss(self, outputs, truth)
        scores, edges, boxes, _ = outputs
        scores = scores.reshape([-1, self.num_classes])
        background = self.loss_vfl(scores, paddle.zeros_like(scores), avg_factor=1.0)
        # Zero, and yet a path to the box branch.
        return {"loss_vfl": background, "loss_bbox": boxes.sum() * 0.0, "loss_dfl": edges.sum() * 0.0}

    return or_background
