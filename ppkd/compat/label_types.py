"""Paddle 3 refuses to add integers of unequal types, which ppdet's assigners do with labels as readers give them."""

import functools
import inspect

import paddle

_MARK = "casts_labels"


def let_assigners_take_int32_labels():
    """Cast the class labels to int64 before `ATSSAssigner` and `TaskAlignedAssigner` derive their index type from them.

    Without it PP-YOLOE does not train: "Type promotion only support ... data type x: int64, y: int32".

    Needed for: paddledet 2.6.0 on Paddle 3; on Paddle 2 nothing is changed.
    """
    from ppdet.modeling.assigners import ATSSAssigner, TaskAlignedAssigner

    if int(paddle.__version__.split(".")[0]) < 3:
        return
    for assigner in (ATSSAssigner, TaskAlignedAssigner):
        if not hasattr(assigner.forward, _MARK):
            assigner.forward = _with_int64_labels(assigner.forward)


def _with_int64_labels(forward):
    signature = inspect.signature(forward)

    @functools.wraps(forward)
    def with_int64_labels(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.arguments["gt_labels"] = call.arguments["gt_labels"].astype("int64")
        return forward(*call.args, **call.kwargs)

    setattr(with_int64_labels, _MARK, True)
    return with_int64_labels
