"""Sets of predictions, matched one to one: a student's and a teacher's, of each layer of their decoders.

Chang et al., "DETRDistill: A Universal Knowledge Distillation Framework for DETR-families", ICCV 2023
(arXiv 2211.10156): the matching of all predictions, layer by layer. The classes are compared by the quality focal
loss (arXiv 2006.04388) or the binary Kullback-Leibler divergence, the boxes by L1 and GIoU, weighted by the teacher's
scores.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from scipy.optimize import linear_sum_assignment

from .boxes import corner_giou_loss
from .common import full_precision
from .sets import EPS, SetLoss, best, check_count, check_from_zero, chosen, corners


class DETRMatchLoss(SetLoss):
    """Of every pair of layers: match the predictions of both, then compare those that are matched.

    With scores p (sigmoids) and boxes b of student s and teacher t, of each image the permutation is that of the least

        ``sum cost_cls * |p_s - p_t|^2 + cost_l1 * |b_s - b_t|_1 + cost_giou * (1 - GIoU)``

    which is 0 for equal sets. With w the teacher's highest score of a prediction, and W the sum of w over images and
    predictions, at least 1 an image, the parts are

        ``cls = weight_cls / W * sum |p_s - p_t|^beta * BCE(p_s, p_t)``, or of ``cls: kl`` that of KL(p_t || p_s)
        ``l1 = weight_l1 / W * sum w * |b_s - b_t|_1``,  ``giou = weight_giou / W * sum w * (1 - GIoU)``

    each the mean over the pairs of layers. Numbers of queries need not agree: the teacher's best `top` predictions are
    matched, or as many as the student has, and the student's that are left over are not compared.

    .. code-block:: yaml

        student: ["decoder.cls[*]", "decoder.box[*]"]
        loss: {name: detr_match}

    Args:
        cls: ``qfl`` or ``kl``.
        top: predictions of the teacher that are compared, by their highest scores; None for all.
        beta: exponent of ``qfl``.
    """

    called = "detr_match"

    def __init__(
        self, cls="qfl", top=100, beta=2.0, weight_cls=1.0, weight_l1=5.0, weight_giou=2.0, cost_cls=2.0, cost_l1=5.0,
        cost_giou=2.0,
    ):  # fmt: skip
        super().__init__(cls, beta, weight_cls, weight_l1, weight_giou)
        check_count(self.called, "top", top, 1)
        self.top = top
        self.costs = (cost_cls, cost_l1, cost_giou)
        for option, cost in zip(("cost_cls", "cost_l1", "cost_giou"), self.costs):
            check_from_zero(self.called, option, cost)

    @full_precision
    def forward(self, student, teacher):
        """Compare ``(classes, boxes)`` of both sides, as `sets.SetLoss.stacked` takes them.

        Returns:
            Dict of ``cls``, ``l1`` and ``giou``.

        Raises:
            ValueError: sources of another shape.
        """
        logits, boxes, wanted, target = self.stacked(student, teacher)
        wanted, target = self._best(wanted, target, logits.shape[1])
        with paddle.no_grad():
            scores = F.sigmoid(logits.detach()), F.sigmoid(wanted)
            cost = match_cost(scores[0], boxes.detach(), scores[1], target, *self.costs)
        order = assign(cost)
        logits, boxes = chosen(logits, order), chosen(boxes, order)
        return self.compared(logits, boxes, wanted, target, teacher[0][0].shape[0])

    def _best(self, wanted, target, queries):
        """The teacher's predictions that are matched: no more than the student has."""
        count = min(self.top or wanted.shape[1], queries, wanted.shape[1])
        if count == wanted.shape[1]:
            return wanted, target
        index = best(wanted, count)
        return chosen(wanted, index), chosen(target, index)


def match_cost(scores, boxes, wanted, target, cost_cls, cost_l1, cost_giou):
    """What it costs to match each of the teacher's predictions with each of the student's.

    Args:
        scores, wanted: (B, Qs, C) and (B, Qt, C) from 0 to 1, of student and teacher.
        boxes, target: (B, Qs, 4) and (B, Qt, 4), centre and size.

    Returns:
        (B, Qt, Qs).
    """
    squares = wanted.square().sum(axis=-1).unsqueeze(2) + scores.square().sum(axis=-1).unsqueeze(1)
    cost = cost_cls * (squares - 2 * paddle.bmm(wanted, scores.transpose([0, 2, 1])))
    boxes, target = boxes.unsqueeze(1), target.unsqueeze(2)
    cost = cost + cost_l1 * (boxes - target).abs().sum(axis=-1)
    return cost + cost_giou * corner_giou_loss(corners(boxes), corners(target), EPS)


def assign(cost):
    """(B, Qt) numbers of the student's predictions of least total cost (B, Qt, Qs); all in one transfer each way."""
    # A student that has diverged is refused by who looks at its losses, not by SciPy.
    costs = np.nan_to_num(cost.numpy(), nan=0.0, posinf=1e6, neginf=-1e6)
    return paddle.to_tensor(np.stack([linear_sum_assignment(each)[1] for each in costs]).astype("int64"))
