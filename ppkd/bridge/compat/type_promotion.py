"""Paddle 3 refuses to calculate with tensors of unequal types, which ppdet does with labels, masks and strides."""

import inspect

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, refuses_types, says
from ppkd.bridge.compat.module_view import replace
from ppkd.bridge.compat.wrapping import wrap


def let_assigners_take_int32_labels():
    """Cast the class labels to int64 before `ATSSAssigner` and `TaskAlignedAssigner` derive their index type from them.

    Without it PP-YOLOE does not train: "Type promotion only support ... data type x: int64, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.assigners import ATSSAssigner, TaskAlignedAssigner

    both = (ATSSAssigner, TaskAlignedAssigner)
    mixing = [assigner for assigner in both if says(assigner, r"index \+ batch_ind \* num_max_boxes\s")]
    if not mixing or not refuses_types("int64", "int32"):
        return NOT_NEEDED
    for assigner in mixing:
        wrap(assigner, "forward", _with_int64_labels)


def _with_int64_labels(forward):
    signature = inspect.signature(forward)

    def with_int64_labels(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.arguments["gt_labels"] = call.arguments["gt_labels"].astype("int64")
        return forward(*call.args, **call.kwargs)

    return with_int64_labels


def let_quality_focal_loss_mask():
    """Give the quality focal loss its mask of positives in numbers, by which it multiplies.

    Without it GFL does not train: "Type promotion only support ... data type x: float32, y: bool".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.losses import gfocal_loss

    mixes = says(gfocal_loss, r"loss \* paddle\.logical_not\(pos_mask\) ")
    if not mixes or not refuses_types("float32", "bool"):
        return NOT_NEEDED
    replace(gfocal_loss.__name__, to_tensor=_mask_to_tensor, logical_not=_not)


def _mask_to_tensor(data, dtype=None, **kwargs):
    return paddle.to_tensor(data, dtype="float32" if dtype == "bool" else dtype, **kwargs)


def _not(x):
    return paddle.logical_not(x).astype("float32")


def let_solov2_compare_areas():
    """Give SOLOv2's post-processing the strides as the floats that it compares areas with.

    Without it SOLOv2 does not evaluate: "Type promotion only support ... data type x: float32, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; clones from 2.7 on cast.
    """
    from ppdet.modeling.heads import solov2_head

    if not says(solov2_head, r"sum_masks > strides,") or not refuses_types("float32", "int32"):
        return NOT_NEEDED
    replace(solov2_head.__name__, gather=_gather_floats)


def _gather_floats(x, index, axis=None):
    found = paddle.gather(x, index, axis)
    return found.astype("float32") if found.dtype == paddle.int32 else found  # of all that it gathers, the strides
