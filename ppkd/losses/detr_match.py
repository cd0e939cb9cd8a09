"""Sets of predictions, matched one to one: a student's and a teacher's, of each layer of their decoders.

Chang et al., "DETRDistill: A Universal Knowledge Distillation Framework for DETR-families", ICCV 2023
(arXiv 2211.10156): the matching of all predictions, layer by layer. The classes are compared by the quality focal
loss (arXiv 2006.04388) or the binary Kullback-Leibler divergence, the boxes by L1 and GIoU, weighted by the teacher's
scores.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from scipy.optimize import linear_sum_assignment

from .boxes import corner_giou_loss
from .common import check_choice, frozen, full_precision, up
from .focal import quality_focal

# Of areas in shares of the image: far below a pixel.
_EPS = 1e-9


class DETRMatchLoss(nn.Layer):
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

    all_levels = True

    def __init__(
        self, cls="qfl", top=100, beta=2.0, weight_cls=1.0, weight_l1=5.0, weight_giou=2.0, cost_cls=2.0, cost_l1=5.0,
        cost_giou=2.0,
    ):  # fmt: skip
        super().__init__()
        check_choice("detr_match", "cls", cls, ("qfl", "kl"))
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
            raise ValueError(f"detr_match: top is {top!r}, expected a number of predictions from 1, or null for all")
        self.cls, self.top, self.beta = cls, top, beta
        self.weights = {"cls": weight_cls, "l1": weight_l1, "giou": weight_giou}
        self.costs = (cost_cls, cost_l1, cost_giou)

    @full_precision
    def forward(self, student, teacher):
        """Compare ``(classes, boxes)`` of both sides.

        Args:
            student, teacher: each a pair of lists, one entry a layer: binary class logits (N, Q, C), and boxes
                (N, Q, 4) as centre x y, width, height in shares of the image. No gradient reaches the teacher.

        Returns:
            Dict of ``cls``, ``l1`` and ``giou``.

        Raises:
            ValueError: sources of another shape.
        """
        _check(student, teacher)
        logits, boxes = (paddle.stack([up(x) for x in each]).flatten(0, 1) for each in student)
        wanted, target = (paddle.stack([frozen(x) for x in each]).flatten(0, 1) for each in teacher)
        wanted, target = self._best(wanted, target, logits.shape[1])
        scores = F.sigmoid(wanted)
        with paddle.no_grad():
            cost = match_cost(F.sigmoid(logits.detach()), boxes.detach(), scores, target, *self.costs)
        chosen = assign(cost)
        logits, boxes = _rows(logits, chosen), _rows(boxes, chosen)
        importance = scores.max(axis=-1)
        images = teacher[0][0].shape[0]
        layers = importance.shape[0] // images
        # A layer's own divisor: the teacher may see more in one than in another.
        divisor = importance.reshape([layers, -1]).sum(axis=1).clip(min=float(images))
        parts = {
            "cls": self._classes(logits, wanted, scores).sum(axis=-1),
            "l1": (boxes - target).abs().sum(axis=-1) * importance,
            "giou": corner_giou_loss(corners(boxes), corners(target), _EPS) * importance,
        }
        return {k: ((x.reshape([layers, -1]).sum(axis=1) / divisor).mean() * self.weights[k]) for k, x in parts.items()}

    def _best(self, wanted, target, queries):
        """The teacher's predictions that are matched: no more than the student has."""
        count = min(self.top or wanted.shape[1], queries, wanted.shape[1])
        if count == wanted.shape[1]:
            return wanted, target
        index = paddle.topk(wanted.max(axis=-1), count, axis=1)[1]
        return _rows(wanted, index), _rows(target, index)

    def _classes(self, logits, wanted, scores):
        if self.cls == "qfl":
            return quality_focal(logits, scores, self.beta)
        gap = wanted - logits
        return scores * gap + F.softplus(logits) - F.softplus(wanted)


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
    return cost + cost_giou * corner_giou_loss(corners(boxes), corners(target), _EPS)


def assign(cost):
    """(B, Qt) numbers of the student's predictions of least total cost (B, Qt, Qs); all in one transfer each way."""
    # A student that has diverged is refused by who looks at its losses, not by SciPy.
    costs = np.nan_to_num(cost.numpy(), nan=0.0, posinf=1e6, neginf=-1e6)
    return paddle.to_tensor(np.stack([linear_sum_assignment(each)[1] for each in costs]).astype("int64"))


def corners(boxes):
    """Centre and size (..., 4) as corners x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return paddle.concat([centre - half, centre + half], axis=-1)


def _rows(x, index):
    """Rows `index` (B, K) of each of (B, Q, C)."""
    batch, queries, channels = x.shape
    flat = (index + paddle.arange(batch).unsqueeze(1) * queries).flatten()
    return paddle.gather(x.reshape([-1, channels]), flat).reshape([batch, -1, channels])


def _check(student, teacher):
    for sides in (student, teacher):
        if not isinstance(sides, (tuple, list)) or len(sides) != 2:
            raise ValueError('detr_match compares two sources: ["decoder.cls[*]", "decoder.box[*]"]')
    for ours, theirs in ((o, t) for pair in zip(student, teacher) for o, t in zip(*pair)):
        if len(ours.shape) != 3 or len(theirs.shape) != 3 or ours.shape[2] != theirs.shape[2]:
            raise ValueError(
                f"detr_match: student {list(ours.shape)} and teacher {list(theirs.shape)} must have the same shape but "
                "for their queries (N, queries, classes or 4): sources are decoder.cls[*] and decoder.box[*], and both "
                "models need the same classes"
            )
