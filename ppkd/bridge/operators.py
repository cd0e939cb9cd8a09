"""Operators of ppdet that nobody compiles for you: detectors of rotated boxes train and are evaluated with them."""

import importlib

from ppkd.errors import UserError

# Head -> the operator with which its targets are assigned, in ppdet/ext_op.
COMPILED = {"PPYOLOERHead": "rbox_iou", "FCOSRHead": "matched_rbox_iou", "S2ANetHead": "rbox_iou"}


def check_operators(model):
    """Check that what the targets of a detector are assigned with has been compiled.

    Raises:
        UserError: it has not; names the operator and how to compile it.
    """
    for layer in model.sublayers():
        name = type(layer).__name__
        if name in COMPILED:
            _want(f"{name} is trained with", COMPILED[name])


def check_operator_of_metric(metric):
    """Check that what ``metric: RBOX`` compares turned boxes with has been compiled.

    ppdet ends the process at the first two that overlap, and what it prints is hushed.

    Raises:
        UserError: as `check_operators`.
    """
    if metric == "RBOX":
        _want("metric: RBOX compares turned boxes with", "rbox_iou")


def _want(use, operator):
    try:
        importlib.import_module("ext_op")
    except Exception as error:  # one that is compiled for another Paddle is there, and no less a riddle
        there = not (isinstance(error, ModuleNotFoundError) and error.name == "ext_op")
        reason = f" for this Paddle (it is there: {' '.join(str(error).split())[:200]})" if there else ""
        raise UserError(
            f"{use} the operator {operator}, which has to be compiled{reason}: in a clone of PaddleDetection, "
            "`python setup.py install` in the folder ppdet/ext_op"
        ) from error
