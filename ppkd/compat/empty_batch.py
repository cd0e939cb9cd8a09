"""ppdet's own detection losses raise on images without boxes, which training data of one's own does have."""

import functools

import paddle

_MARK = "patched_by_ppkd"


def return_all_of_an_empty_assignment():
    """Let the assigners of PP-YOLOE return four values for a batch without any box, as they do otherwise.

    Their early exit leaves out the mask of positives: "not enough values to unpack (expected 4, got 3)".

    Needed for: paddledet 2.6.0 (`ATSSAssigner`, `TaskAlignedAssigner`) on every Paddle.
    """
    from ppdet.modeling.assigners import ATSSAssigner, TaskAlignedAssigner

    for assigner in (ATSSAssigner, TaskAlignedAssigner):
        if not hasattr(assigner.forward, _MARK):
            assigner.forward = _with_mask(assigner.forward)


def _with_mask(forward):
    @functools.wraps(forward)
    def with_mask(*args, **kwargs):
        assigned = forward(*args, **kwargs)
        if len(assigned) == 3:
            batch, anchors = assigned[0].shape
            assigned = (*assigned, paddle.zeros([batch, 1, anchors]))
        return assigned

    setattr(with_mask, _MARK, True)
    return with_mask


def encode_no_boxes():
    """Let RetinaNet encode the boxes of an image that has none.

    ``bbox2delta`` stacks tensors without elements, which Paddle 2 refuses.

    Needed for: paddledet 2.6.0 on Paddle 2.6 (3.x stacks them).
    """
    from ppdet.modeling.heads import retina_head

    if not hasattr(retina_head.bbox2delta, _MARK):
        retina_head.bbox2delta = _or_nothing(retina_head.bbox2delta)


def _or_nothing(encode):
    @functools.wraps(encode)
    def or_nothing(boxes, targets, *args, **kwargs):
        return encode(boxes, targets, *args, **kwargs) if boxes.shape[0] else paddle.zeros([0, 4])

    setattr(or_nothing, _MARK, True)
    return or_nothing


def learn_from_background_alone():
    """Let RetinaNet take a step on a batch without any box: all anchors are background, and there is no box loss.

    Its own loss concatenates tensors without elements, which Paddle 2 refuses.

    Needed for: paddledet 2.6.0 on Paddle 2.6 (3.x concatenates them).
    """
    from ppdet.modeling.heads.retina_head import RetinaHead

    if not hasattr(RetinaHead.get_loss, _MARK):
        RetinaHead.get_loss = _or_background(RetinaHead.get_loss)


def _or_background(get_loss):
    @functools.wraps(get_loss)
    def or_background(self, outputs, targets):
        if any(boxes.shape[0] for boxes in targets["gt_bbox"]):
            return get_loss(self, outputs, targets)
        logits, deltas = outputs
        rows = paddle.concat([x.transpose([0, 2, 3, 1]).reshape([-1, self.num_classes]) for x in logits])
        background = paddle.full([rows.shape[0]], self.num_classes, dtype="int64")
        loss = self.loss_class(rows, background, reduction="sum")
        none = sum(x.sum() for x in deltas) * 0.0  # zero, and yet a path to the box branch for data parallel
        return {"loss_cls": loss, "loss_reg": none, "loss": loss + none}

    setattr(or_background, _MARK, True)
    return or_background
