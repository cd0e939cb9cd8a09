"""Boxes that count by how sure their detector is: the scores that an assigner gives, times the box's own."""

import contextlib

import paddle

# Those whose third output is what a prediction is worth as one of its box: of PP-YOLOE, PicoDet and TOOD.
_ASSIGNERS = ("ATSSAssigner", "TaskAlignedAssigner")


def assigners(model):
    """The layers of a ppdet model that tell what predictions are worth."""
    return [layer for layer in model.sublayers() if type(layer).__name__ in _ASSIGNERS]


@contextlib.contextmanager
def counted_by_score(models, boxes, classes, scores):
    """A block in which what detectors assign to a box is worth the box's score.

    Heads that are trained towards a quality take their targets, and the weights of box losses, of what the assigner
    calls scores.

    Args:
        models: list of ppdet models; of those that have no `assigners` nothing changes.
        boxes: (N, M, 4) corners, zero padded.
        classes: (N, M) int64.
        scores: (N, M) float32.
    """

    def weigh(layer, inputs, outputs):
        labels, corners, worth, *rest = outputs
        # Equal to the bit, for they were picked out of `boxes`; two classes may have the same box.
        same = labels.astype(classes.dtype).unsqueeze(2) == classes.unsqueeze(1)
        for side in range(4):
            same = paddle.logical_and(same, corners[:, :, side].unsqueeze(2) == boxes[:, :, side].unsqueeze(1))
        same = same.astype(scores.dtype)
        factor = (same * scores.unsqueeze(1)).max(-1) + (1 - same.max(-1))  # where nothing is assigned, worth is 0
        return (labels, corners, worth * factor.unsqueeze(-1).astype(worth.dtype), *rest)

    layers = {id(layer): layer for model in models for layer in assigners(model)} if boxes.shape[1] else {}
    hooks = [layer.register_forward_post_hook(weigh) for layer in layers.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
