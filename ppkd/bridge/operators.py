"""Operators of ppdet that nobody compiles for you: detectors of rotated boxes train with them alone."""

import importlib.util

from ppkd.errors import UserError

# Head -> the operator with which its targets are assigned, in ppdet/ext_op.
COMPILED = {"PPYOLOERHead": "rbox_iou", "FCOSRHead": "matched_rbox_iou", "S2ANetHead": "rbox_iou"}


def check_operators(model):
    """Check that what the targets of a detector are assigned with has been compiled.

    Raises:
        UserError: it has not; names the operator and how to compile it.
    """
    if importlib.util.find_spec("ext_op") is not None:
        return
    for layer in model.sublayers():
        name = type(layer).__name__
        if name in COMPILED:
            raise UserError(
                f"{name} is trained with the operator {COMPILED[name]}, which has to be compiled: in a clone of "
                "PaddleDetection, `python setup.py install` in the folder ppdet/ext_op"
            )
