"""Since Paddle 2.5 one element of a tensor has no dimension, where it was a list of one; ppdet counts on the list."""

import importlib

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.module_view import replace


def concat_numbers():
    """Let modules of ppdet that join numbers (of boxes, heights, widths) ``concat`` them again.

    Without it Faster, Mask and Cascade R-CNN, TOOD, SOLOv2, S2ANet, Deformable DETR and DINO do not train or do not
    evaluate: "The axis is expected to be in range of [0, 0)".

    Needed for: paddledet 2.6.0 on Paddle 2.5 and later; clones from 2.6.1 on join lists of one.
    """
    joining = [name for name, number in _JOINED.items() if says(importlib.import_module(name), number)]
    if not joining:
        return NOT_NEEDED
    for name in joining:
        replace(name, concat=_concat)


# Modules, and how each makes a number of what it joins: mended by a slice of one, ``[0:1]``.
_JOINED = {
    "ppdet.modeling.heads.cascade_head": r"concat\(\[paddle\.shape\(r\)\[0\] for",
    "ppdet.modeling.heads.s2anet_head": r"scale_y, scale_x = scale_factor\[i\]\[0\],",
    "ppdet.modeling.heads.tood_head": r"h, w = get_static_shape\(feat\)\s+feat = ",
    "ppdet.modeling.layers": r"paddle\.shape\(cate_scores\)\[0\] - 1",
    "ppdet.modeling.post_process": r"bbox_num_i = bbox_num\[i\]\s",
    "ppdet.modeling.proposal_generator.rpn_head": r"append\(paddle\.shape\(topk_rois\)\[0\]\)",
    "ppdet.modeling.proposal_generator.target": r"append\(paddle\.shape\(\w+\)\[0\]\)",
    "ppdet.modeling.transformers.deformable_transformer": r"h, w = paddle\.shape\(\w+\)\s+\w+\.append\(paddle\.concat",
    "ppdet.modeling.transformers.dino_transformer": r"h, w = paddle\.shape\(\w+\)\s+\w+\.append\(paddle\.concat",
}


def index_numbers():
    """Let SOLOv2's post-processing take element 0 of a number after a ``cast``.

    Without it SOLOv2 does not evaluate: "The starting index 0 of slice is out of bounds in tensor 0-th axis".

    Needed for: paddledet 2.6.0 on Paddle 2.5 and later; clones from 2.6.1 on join lists of one.
    """
    from ppdet.modeling.heads import solov2_head

    if not says(solov2_head, r"cast\(paddle\.shape\(\w+\)\[0\]"):
        return NOT_NEEDED
    replace(solov2_head.__name__, cast=_cast)


def count_solov2_masks_in_a_list():
    """Let SOLOv2 give the number of its masks as a list with a number an image, as other detectors do with boxes.

    Without it inference dies: "too many indices for array: array is 0-dimensional".

    Needed for: paddledet 2.6.0 on Paddle 2.5 and later; clones from 2.6.1 on join lists of one.
    """
    from ppdet.modeling.heads.solov2_head import SOLOv2Head

    if not says(SOLOv2Head, r"bbox_num = paddle\.shape\(cate_labels\)\[0\]\s"):
        return NOT_NEEDED
    if not hasattr(SOLOv2Head, "ppdets_get_prediction"):
        SOLOv2Head.ppdets_get_prediction, SOLOv2Head.get_prediction = SOLOv2Head.get_prediction, _get_prediction


def count_detections_in_tensors():
    """Let SOLOv2 and TTFNet give the number of what they found as a tensor, as all else that a detector gives.

    Without it TTFNet does not evaluate: "'list' object has no attribute 'shape'", and SOLOv2's export gives none.

    Needed for: clones of the develop branch, which took the shape of the results for it; not in the wheel.
    """
    from ppdet.modeling.heads.solov2_head import SOLOv2Head
    from ppdet.modeling.layers import TTFBox

    solov2, ttfnet = says(SOLOv2Head, r"bbox_num = cate_labels\.shape\["), says(TTFBox, r"results, results\.shape\[")
    if solov2 and not hasattr(SOLOv2Head, "ppdets_get_prediction"):
        SOLOv2Head.ppdets_get_prediction, SOLOv2Head.get_prediction = SOLOv2Head.get_prediction, _counted_masks
    if ttfnet and not hasattr(TTFBox, "ppdets_decode"):
        TTFBox.ppdets_decode, TTFBox._decode = TTFBox._decode, _counted_boxes
    return None if solov2 or ttfnet else NOT_NEEDED


def _counted_masks(self, *args):
    masks, labels, scores, _ = self.ppdets_get_prediction(*args)
    return masks, labels, scores, paddle.shape(labels)[0:1]


def _counted_boxes(self, *args):
    results, _ = self.ppdets_decode(*args)
    return results, paddle.shape(results)[0:1]


def _get_prediction(self, *args):
    # Neither a closure nor functools.wraps: for an export Paddle traces the source, of a wrapped function the original.
    masks, labels, scores, count = self.ppdets_get_prediction(*args)
    return masks, labels, scores, _as_list(count)


def _concat(x, axis=0, name=None):
    if isinstance(x, (list, tuple)):
        return paddle.concat([_as_list(item) for item in x], axis, name)
    # In a static graph a list that is filled in a loop is an array of tensors. Numbers in it can only be stacked, and
    # integers are all numbers here.
    return _stack_array(x) if "int" in str(x.dtype).lower() else paddle.concat(x, axis, name)


def _stack_array(x):
    if paddle.framework.in_pir_mode():
        return paddle._C_ops.array_to_tensor(x, 0, True)[0]
    return paddle.tensor.manipulation.tensor_array_to_tensor(x, axis=0, use_stack=True)[0]


def _cast(x, dtype):
    return paddle.cast(_as_list(x), dtype)


def _as_list(x):
    return x.reshape([1]) if len(x.shape) == 0 else x
