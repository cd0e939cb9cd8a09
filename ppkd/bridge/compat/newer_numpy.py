"""What numpy 2.5 does not do any more, and Paddle and ppdet count on: a list of one value is not that value."""

import inspect

import numpy as np
import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.module_view import replace
from ppkd.bridge.compat.wrapping import wrap


def convert_tensors_of_one():
    """Let a tensor of one value with dimensions be converted to a number of Python, and count and index as one.

    Without it R-CNNs and SOLOv2 do not train: "only 0-dimensional arrays can be converted to Python scalars".

    Needed for: Paddle up to 3.3.1, which asks numpy, with numpy 2.5.
    """
    one = paddle.to_tensor([1], place=paddle.CPUPlace())
    try:
        int(one)
    except TypeError:
        for name in ("__int__", "__float__", "__index__"):
            wrap(type(one), name, _without_dimensions)
        return None
    return NOT_NEEDED


def _without_dimensions(convert):
    def without_dimensions(self):
        return convert(self.reshape([]) if self.ndim and self.size == 1 else self)

    return without_dimensions


def reshape_to_a_new_shape():
    """Let FCOS's targets reshape arrays by the keyword ``newshape``.

    Without it FCOS does not train: "reshape() got an unexpected keyword argument 'newshape'".

    Needed for: numpy 2.5, with the wheel and all clones so far.
    """
    from ppdet.data.transform import batch_operators

    if "newshape" in inspect.signature(np.reshape).parameters or not says(batch_operators, r"newshape="):
        return NOT_NEEDED
    return replace(batch_operators.__name__, "np", reshape=_reshape)


def _reshape(a, shape=None, *, newshape=None, **kwargs):
    return np.reshape(a, newshape if shape is None else shape, **kwargs)


def score_boxes_by_numbers():
    """Let YOLOv3's targets take the score of a box as the number that they put into an array.

    Without it YOLOv3 and PP-YOLO do not train: "setting an array element with a sequence".

    Needed for: numpy 2.5, with the wheel and all clones so far.
    """
    from ppdet.data.transform.batch_operators import Gt2YoloTarget

    if _puts_lists_of_one() or not says(Gt2YoloTarget.__call__, r"score = gt_score\[b\]\s"):
        return NOT_NEEDED
    return wrap(Gt2YoloTarget, "__call__", _with_scores_in_a_row)


def _puts_lists_of_one():
    try:
        np.zeros(1)[0] = np.ones(1)
    except ValueError:
        return False
    return True


def _with_scores_in_a_row(make):
    def with_scores_in_a_row(self, samples, context=None):
        for sample in samples:
            sample["gt_score"] = np.ravel(sample.get("gt_score", np.ones(len(sample["gt_bbox"]), "float32")))
        return make(self, samples, context)

    return with_scores_in_a_row


def take_classes_for_numbers():
    """Let CenterNet's targets and VOC's metric make whole numbers of arrays of one: classes, and who is difficult.

    Without it CenterNet does not train, and nothing is evaluated by ``metric: VOC``: "only 0-dimensional arrays can be
    converted to Python scalars".

    Needed for: numpy 2.5, with the wheel and all clones so far.
    """
    from ppdet.data.transform.batch_operators import Gt2CenterNetTarget
    from ppdet.metrics.map_utils import DetectionMAP

    try:
        int(np.ones(1))
    except TypeError:
        wrap(Gt2CenterNetTarget, "__call__", _with_classes_in_a_row)
        wrap(DetectionMAP, "update", _of_labels_in_a_row)
        return None
    return NOT_NEEDED


def _with_classes_in_a_row(make):
    def with_classes_in_a_row(self, sample, context=None):
        return make(self, sample | {"gt_class": np.ravel(sample["gt_class"])}, context)

    return with_classes_in_a_row


def _of_labels_in_a_row(update):
    def of_labels_in_a_row(self, bbox, score, label, gt_box, gt_label, difficult=None):
        return update(
            self, bbox, score, label, gt_box, np.ravel(gt_label), None if difficult is None else np.ravel(difficult)
        )

    return of_labels_in_a_row
