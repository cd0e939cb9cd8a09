"""Binary Classification Knowledge Distillation (BCKD).

Yang et al., "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023
(arXiv 2308.14286). Dense detectors score each class for itself with a sigmoid. A softmax over the classes, as in
distillation of classifiers, does not see a constant added to all logits, and the scores may differ at its optimum. Here
every class of every anchor is a binary classification of its own, and boxes are compared by their IoU, whatever a head
predicts them with:

    w_ij  = |sigma(t_ij) - sigma(s_ij)|
    L_cls = sum over anchors i and classes j of w_ij * BCE(sigma(s_ij), sigma(t_ij))
    L_iou = sum over anchors i of max_j w_ij * (1 - IoU(box_s_i, box_t_i))
    L     = 1.0 * L_cls + 4.0 * L_iou

(section 3 of the paper: binary classification distillation loss, IoU-based localization distillation loss, total; the
IoU and not the GIoU). Both parts vanish where the scores agree.

What the paper leaves open, and what is done here:

* Its formulas are sums. A sum grows with the batch and the map; here both are divided by the number of cells in which
  the teacher sees an object (see :func:`focal.map_divisor`). ``per: image`` is the sum itself, averaged over the batch.
* Whether the gradient goes through w. In L_cls it does: as written this is the quality focal loss with beta 1. In
  L_iou w is a weight without gradient, or else scores would be paid for boxes that are off.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .boxes import iou
from .common import check_choice, check_levels, frozen, full_precision, rows, up
from .focal import PER, map_divisor, map_focal


@full_precision
def bckd_iou(student, teacher, num_classes, per="object"):
    """L_iou of all levels together, unweighted.

    Args:
        student, teacher: pairs of lists, one entry a level: class logits (N, A * K, H, W) and distances
            (N, A * 4, H, W) left, top, right, bottom of each anchor's box from the point of its cell; anchor a has the
            channels from a * K and from a * 4. No gradient reaches the teacher and the class logits.
        num_classes: K.
        per: see :func:`focal.map_divisor`.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes, or channels that are not A * K and A * 4 for one A.
    """
    for ours, theirs in zip(student, teacher):
        check_levels("bckd", ours, theirs)
    total = []
    for s_cls, s_box, t_cls, t_box in zip(*student, *teacher):
        anchors = s_cls.shape[1] // num_classes
        if [s_cls.shape[1], s_box.shape[1]] != [anchors * num_classes, anchors * 4]:
            raise ValueError(
                f"bckd: {s_cls.shape[1]} class and {s_box.shape[1]} box channels, expected A * {num_classes} and A * 4 "
                "for A anchors a cell"
            )
        images, _, height, width = s_cls.shape
        gap = (F.sigmoid(frozen(s_cls)) - F.sigmoid(frozen(t_cls))).abs()
        weight = gap.reshape([images, anchors, num_classes, height, width]).max(axis=2)
        miss = 1 - iou(rows(up(s_box), anchors), rows(frozen(t_box), anchors))
        total.append((miss * rows(weight, anchors).flatten()).sum())
    return paddle.add_n(total) / map_divisor(teacher[0], per)


class BCKDLoss(nn.Layer):
    """``cls_weight * L_cls`` and ``iou_weight * L_iou`` of all levels of a dense head.

    .. code-block:: yaml

        student: ["head.cls[*]", "head.ltrb[*]"]
        teacher: ["head.cls[*]", "head.ltrb[*]"]
        loss: {name: bckd, cls_weight: 1.0, iou_weight: 4.0}

    Args:
        cls_weight, iou_weight: the weights of ``cls`` and ``iou``, alpha_1 and alpha_2 of the paper.
        per: see :func:`focal.map_divisor`.

    Raises:
        ValueError: an unknown ``per``.
    """

    all_levels = True
    compares = ("class logits", "distances of edges")

    def __init__(self, cls_weight=1.0, iou_weight=4.0, per="object"):
        super().__init__()
        check_choice("bckd", "per", per, PER)
        self.weights = {"cls": cls_weight, "iou": iou_weight}
        self.per = per

    def forward(self, student, teacher, num_classes):
        """The weighted parts whose weight is not 0; see :func:`bckd_iou`."""
        parts = {
            "cls": lambda: map_focal("bckd", student[0], teacher[0], 1.0, self.per),
            "iou": lambda: bckd_iou(student, teacher, num_classes, self.per),
        }
        return {name: part() * self.weights[name] for name, part in parts.items() if self.weights[name]}


class BCKDClassLoss(nn.Layer):
    """L_cls alone, for heads whose boxes are not to be had.

    .. code-block:: yaml

        student: head.cls[*]
        teacher: head.cls[*]
        loss: {name: bckd_cls}

    Args:
        per: see :func:`focal.map_divisor`.

    Raises:
        ValueError: an unknown ``per``.
    """

    all_levels = True

    def __init__(self, per="object"):
        super().__init__()
        check_choice("bckd_cls", "per", per, PER)
        self.per = per

    def forward(self, student, teacher):
        """A scalar from lists of class logits (N, A * K, H, W), one entry a level.

        Raises:
            ValueError: unequal shapes.
        """
        return map_focal("bckd_cls", student, teacher, 1.0, self.per)
