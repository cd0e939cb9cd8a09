"""Decoupled Knowledge Distillation (DKD).

Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022 (arXiv 2203.08679): TCKD and NCKD. There the rows are the
images of a classifier and, in detectors, the regions of a two-stage head; `DenseDKDLoss` takes the positions of a dense
head that lie inside of an object.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .boxes import cell_points
from .common import at_least_one_box, check_choice, check_levels, check_same_shape, frozen, full_precision, rows, up
from .kl import kl_rows

REDUCTIONS = ("batchmean", "sum")

# Subtracted from the target's logit (after the temperature) to take it out of a softmax.
_FAR = 1000.0


def _target_or_other(logits, one_hot):
    """Logits (N, 2) of the target class and of all others together."""
    target = (logits * one_hot).sum(axis=1)
    # As a log-sum-exp and not as one minus the target's probability, which cancels.
    other = paddle.logsumexp(logits - _FAR * one_hot, axis=1)
    return paddle.stack([target, other], axis=1)


@full_precision
def dkd_rows(student, teacher, labels, tau=1.0):
    """KL divergence split into the target class against the rest, and the rest among itself, row by row.

    ``tckd = tau^2 * KL`` of the two-way distributions (target, all others) of
    ``softmax(x / tau)``; ``nckd = tau^2 * KL`` of the softmax without the target.

    Args:
        student, teacher: logits (n, K); no gradient reaches the teacher.
        labels: (n,) integers, 0 to K - 1.
        tau: the temperature.

    Returns:
        ``tckd`` and ``nckd``, each (n,); finite for any logits.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("dkd", student, teacher)
    student, teacher = up(student) / tau, frozen(teacher) / tau
    one_hot = F.one_hot(labels, student.shape[1]).astype(student.dtype)
    target = kl_rows(
        _target_or_other(student, one_hot), _target_or_other(teacher, one_hot), tau=1.0, axis=1
    )
    far = _FAR * one_hot
    others = kl_rows(student - far, teacher - far, tau=1.0, axis=1)
    return target * tau**2, others * tau**2


def dkd_parts(student, teacher, labels, tau=1.0, reduction="batchmean"):
    """:func:`dkd_rows` of all rows together.

    Args:
        student, teacher, labels, tau: as there, with N rows.
        reduction: ``batchmean`` divides the sum by N; ``sum`` does not, so it grows with N.

    Returns:
        Scalars ``tckd`` and ``nckd``.

    Raises:
        ValueError: unequal shapes, or an unknown reduction.
    """
    check_choice("dkd", "reduction", reduction, REDUCTIONS)
    divisor = student.shape[0] if reduction == "batchmean" else 1
    tckd, nckd = dkd_rows(student, teacher, labels, tau)
    return {"tckd": tckd.sum() / divisor, "nckd": nckd.sum() / divisor}


class DKDLoss(nn.Layer):
    """``alpha * tckd`` and ``beta * nckd`` of :func:`dkd_parts`, for rows whose labels are known.

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, tau=1.0, alpha=1.0, beta=1.0, reduction="batchmean"):
        super().__init__()
        check_choice("dkd", "reduction", reduction, REDUCTIONS)
        self.tau = tau
        self.reduction = reduction
        self.weights = {"tckd": alpha, "nckd": beta}

    def forward(self, student, teacher, labels):
        parts = dkd_parts(student, teacher, labels, self.tau, self.reduction)
        return {name: part * self.weights[name] for name, part in parts.items()}


class DenseDKDLoss(nn.Layer):
    """``alpha * tckd`` and ``beta * nckd`` of a dense head: the mean of :func:`dkd_rows` over anchors inside of a box.

    A row is one anchor of one cell; it counts if the point of the cell lies inside of a ground-truth box, and its
    target is the class of the smallest such box. All levels and images are one mean. The softmax runs over the classes
    also where the head scores each by a sigmoid, and does not see a constant added to all of them.

    .. code-block:: yaml

        student: head.cls[*]
        teacher: head.cls[*]
        loss: {name: dkd, tau: 1.0, alpha: 1.0, beta: 1.0}

    Args:
        tau: the temperature.
        alpha, beta: the weights of ``tckd`` and ``nckd``; a part of weight 0 is left out.
    """

    all_levels = True
    # Of a single class nothing is left once the target is taken out.
    least_classes = 2

    def __init__(self, tau=1.0, alpha=1.0, beta=1.0):
        super().__init__()
        self.tau = tau
        self.weights = {"tckd": alpha, "nckd": beta}

    @full_precision
    def forward(self, student, teacher, boxes, boxes_valid, classes, strides, cell_offset, num_classes):
        """The weighted parts; 0, but connected, without a box.

        Args:
            student, teacher: lists of class logits (N, A * K, H, W), one entry a level; the classes of one anchor stand
                next to each other.
            boxes: (N, M, 4) ``x1 y1 x2 y2`` in pixels of the network's input.
            boxes_valid: (N, M), which rows of ``boxes`` are boxes.
            classes: (N, M) integers, the class of each box from 0; those of padding do not matter.
            strides: of the levels, in pixels.
            cell_offset: where the point of a cell lies in it, from 0 to 1.
            num_classes: K.

        Returns:
            Scalars ``tckd`` and ``nckd``.

        Raises:
            ValueError: unequal shapes, channels that are not A * K, or a single class, of which nothing is left when
                the target is taken out.
        """
        check_levels("dkd", student, teacher)
        if num_classes < self.least_classes:
            raise ValueError("dkd: with a single class both parts are always 0; it needs two or more")
        points = cell_points([x.shape[2:] for x in student], strides, cell_offset)
        sums, count = {"tckd": [], "nckd": []}, []
        for s, t, place in zip(student, teacher, points):
            anchors = s.shape[1] // num_classes
            if s.shape[1] != anchors * num_classes:
                raise ValueError(f"dkd: {s.shape[1]} channels, expected A * {num_classes} for A anchors a cell")
            labels, inside = (
                x.unsqueeze(-1).expand([*x.shape, anchors]).flatten()
                for x in smallest_box(place, boxes, boxes_valid, classes)
            )
            # Every row is computed and most are weighed with zero: picking some out would make shapes depend on the
            # data, and a batch without boxes would lose its gradient.
            for parts, part in zip(sums.values(), dkd_rows(rows(s, anchors), rows(t, anchors), labels, self.tau)):
                parts.append((part * inside.astype(part.dtype)).sum())
            count.append(inside.sum())
        mean = 1 / paddle.add_n(count).clip(min=1.0)
        return {
            name: paddle.add_n(parts) * mean.astype(parts[0].dtype) * self.weights[name]
            for name, parts in sums.items()
            if self.weights[name]
        }


def smallest_box(points, boxes, boxes_valid, classes):
    """The class of the smallest box around each point.

    Args:
        points: (P, 2) ``x y``.
        boxes: (N, M, 4) ``x1 y1 x2 y2`` in the points' units; M may be 0.
        boxes_valid: (N, M), which rows of ``boxes`` are boxes.
        classes: (N, M) integers.

    Returns:
        ``labels`` (N, P) int64, 0 where there is no box, and ``inside`` (N, P) float32, 1 where there is one. A point
        on the edge of a box is outside; of two boxes of equal area the first one counts.
    """
    with paddle.no_grad():
        if classes.shape[1] == 0:
            classes = paddle.zeros([classes.shape[0], 1])
        boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
        x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(axis=-1)
        x, y = points.astype("float32").unbind(axis=-1)
        around = (x > x1) & (x < x2) & (y > y1) & (y < y2) & (boxes_valid.unsqueeze(-1) > 0)
        area = (x2 - x1) * (y2 - y1)
        nobody = paddle.full_like(area, float("inf"))
        claim = paddle.where(around, area.expand(around.shape), nobody.expand(around.shape))
        inside = around.astype("float32").max(axis=1)
        labels = paddle.take_along_axis(classes.astype("int64"), claim.argmin(axis=1), axis=1)
    # Nobody's class may be padding of any value, which a one-hot code would refuse.
    return labels * inside.astype("int64"), inside
