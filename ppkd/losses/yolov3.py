"""Objectness-gated distillation of YOLO heads.

Mehta and Ozturk, "Object detection at 200 Frames Per Second", ECCV 2018 workshops (arXiv
1805.06361), section 3.2, in the form that PaddleDetection gives it for YOLOv3: where the teacher
sees no object, its boxes and classes teach nothing.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_same_shape, frozen, full_precision, up


@full_precision
def yolov3_parts(student, teacher):
    """The six parts of one pyramid level, unweighted, each a mean over images, anchors and positions.

    With o the teacher's objectness (a sigmoid), s and t the student's and the teacher's raw outputs:

    * ``x``, ``y``: ``o * BCE(s, sigmoid(t))``;
    * ``w``, ``h``: ``o * |s - t|``;
    * ``cls``: ``o * BCE(s, sigmoid(t))``, a mean over the classes too;
    * ``obj``: ``BCE(s, 1 where the teacher's logit is above 0)``, not gated.

    The entropy of the target is not subtracted: for equal outputs the parts are not zero, but their gradient is
    (except for ``obj``, whose target is hard).

    Args:
        student, teacher: triples ``(box (N, 4 * A, H, W), objectness (N, A, H, W), classes (N, K * A, H, W))`` of raw
            outputs for A anchors, the fields of one anchor next to each other. No gradient reaches the teacher.

    Returns:
        Scalars ``x``, ``y``, ``w``, ``h``, ``cls``, ``obj``.

    Raises:
        ValueError: unequal shapes, or channels that do not fit the number of anchors.
    """
    for ours, theirs in zip(student, teacher):
        check_same_shape("yolov3", ours, theirs)
    s, t = _fields(*map(up, student)), _fields(*map(frozen, teacher))
    gate = F.sigmoid(t["obj"])
    losses = {name: (_bce(s[name], F.sigmoid(t[name])) * gate).mean() for name in ("x", "y")}
    losses |= {name: ((s[name] - t[name]).abs() * gate).mean() for name in ("w", "h")}
    losses["cls"] = (_bce(s["cls"], F.sigmoid(t["cls"])) * gate).mean()
    losses["obj"] = _bce(s["obj"], (t["obj"] > 0).astype(s["obj"].dtype)).mean()
    return losses


def _bce(logit, target):
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none")


def _fields(box, objectness, classes):
    """Named parts of shape (N, A, fields, H, W)."""
    batch, anchors, height, width = objectness.shape
    if box.shape[1] != 4 * anchors or classes.shape[1] % anchors:
        raise ValueError(
            f"yolov3: {box.shape[1]} box and {classes.shape[1]} class channels do not fit {anchors} anchors"
        )
    box, objectness, classes = (x.reshape([batch, anchors, -1, height, width]) for x in (box, objectness, classes))
    return dict(zip("xywh", box.split(4, axis=2)), obj=objectness, cls=classes)


class YOLOv3Loss(nn.Layer):
    """:func:`yolov3_parts` of one level; weighting is the term's business.

    .. code-block:: yaml

        student: [head.box[*], head.objectness[*], head.cls[*]]
        teacher: [head.box[*], head.objectness[*], head.cls[*]]
        loss: {name: yolov3}
        weight: 1000
    """

    compares = ("boxes", "objectness", "class logits")

    def forward(self, student, teacher):
        return yolov3_parts(student, teacher)
