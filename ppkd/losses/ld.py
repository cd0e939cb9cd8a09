"""Localisation Distillation (LD).

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022 (arXiv 2102.12252),
on box edges predicted as distributions (Generalized Focal Loss, arXiv 2006.04388), and the adaptive
selection of anchors of ATSS (arXiv 1912.02424).

"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .boxes import cell_points
from .common import COCO_CLASSES, at_least_one_box, check_same_shape, full_precision, rows
from .kl import kl_rows

_EPS = 1e-6
_INSIDE = 0.01  # pixels that an anchor's centre must lie inside a box to be positive


@full_precision
def ld_rows(student, teacher, temp=10.0):
    """``temp^2 * mean over the K bins of p_T * (log p_T - log p_S)``, row by row.

    The mean divides by K, also where the K are classes.

    Args:
        student, teacher: logits (n, K); no gradient reaches the teacher.
        temp: the temperature.

    Returns:
        (n,).

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("ld", student, teacher)
    return kl_rows(student, teacher, temp, axis=1) * (temp**2 / student.shape[1])


@full_precision
def ld_terms(
    student,
    teacher,
    positive,
    label_weights,
    vlr_region,
    ld_temp=10.0,
    vlr_temp=10.0,
    kd_temp=2.0,
    batch_average=True,
):
    """The three terms of one pyramid level, unweighted.

    * ``ld``: :func:`ld_rows` of the four edges of positive anchors, weighted by the student's
      highest class score there (a sigmoid, without gradient); the sum over 4.
    * ``ld_vlr``: the same over all anchors, weighted by ``vlr_region``; the sum over 16.
    * ``kd``: :func:`ld_rows` of the classes of positive anchors, weighted by ``label_weights``;
      the sum over the number of positives (at least 1).

    The recipe weighs them 0.25, 0.25 and 10.

    Args:
        student, teacher: pairs of maps ``(classes, edges)``, (N, K, H, W) logits and
            (N, 4 * bins, H, W) with the bins of one edge next to each other.
        positive: (N, H * W), true or 1 at positive anchors, in the order of the positions.
        label_weights: (N, H * W).
        vlr_region: (N, H * W), from :func:`atss_regions`.
        ld_temp, vlr_temp, kd_temp: the temperatures.
        batch_average: divide ``ld`` and ``ld_vlr`` by N. The authors do not, so that theirs grow
            with the batch; False is their way.

    Returns:
        Scalars ``ld``, ``ld_vlr``, ``kd``; zero, but connected, without a fitting anchor.

    Raises:
        ValueError: unequal shapes.
    """
    (student_cls, student_box), (teacher_cls, teacher_box) = student, teacher
    check_same_shape("ld", student_cls, teacher_cls)
    check_same_shape("ld", student_box, teacher_box)
    batch = student_cls.shape[0]
    positive, label_weights, vlr_region = (
        x.flatten().astype("float32") for x in (positive, label_weights, vlr_region)
    )
    # Every anchor is computed and most are weighed with zero: picking some out would make shapes
    # depend on the data, and a level without any would lose its gradient.
    cls_rows = rows(student_cls, 1), rows(teacher_cls, 1)
    box_rows = rows(student_box, 4), rows(teacher_box, 4)
    score = F.sigmoid(cls_rows[0].detach().astype("float32")).max(axis=1)
    share = 1 / batch if batch_average else 1.0

    def edges(temp):
        return ld_rows(*box_rows, temp).reshape([-1, 4]).sum(axis=1)

    of_positives = edges(ld_temp)
    of_region = of_positives if vlr_temp == ld_temp else edges(vlr_temp)
    ld = (of_positives * score * positive).sum() * (share / 4)
    ld_vlr = (of_region * vlr_region).sum() * (share / 16)
    kd = (ld_rows(*cls_rows, kd_temp) * label_weights * positive).sum()
    return {"ld": ld, "ld_vlr": ld_vlr, "kd": kd / positive.sum().clip(min=1.0)}


class LDLoss(nn.Layer):
    """Localisation distillation of all levels of a head at once; formulas in :func:`ld_terms`.

    Positive anchors and the region come from :func:`atss_regions` on square anchors, one a position, as in the
    authors' GFL: the region's own assigner, whichever one the detector's loss has.

    .. code-block:: yaml

        student: ["head.cls[*]", "head.box_dist[*]"]
        teacher: ["head.cls[*]", "head.box_dist[*]"]
        loss: {name: ld, ld_weight: 0.25, vlr_weight: 0.25, kd_weight: 10}

    Args:
        ld_weight, vlr_weight, kd_weight: the weights of ``main``, ``vlr`` and ``kd``.
        ld_temp, vlr_temp, kd_temp: the temperatures.
        anchor_scale: side of an anchor in strides.
        topk: anchors per level and box.
        batch_average: see :func:`ld_terms`.
        biased_positives: see :func:`atss_regions`.
        kd_per_class: multiply ``kd_weight`` by classes / 80. ``kd`` is a mean over the classes, so that a weight chosen
            for COCO is too strong by that factor where there are fewer.
    """

    all_levels = True

    def __init__(
        self,
        ld_weight=0.25,
        vlr_weight=0.25,
        kd_weight=10.0,
        ld_temp=10.0,
        vlr_temp=10.0,
        kd_temp=2.0,
        anchor_scale=8.0,
        topk=9,
        batch_average=True,
        biased_positives=False,
        kd_per_class=True,
    ):
        super().__init__()
        self.weights = {"main": ld_weight, "vlr": vlr_weight, "kd": kd_weight}
        self.temps = {"ld_temp": ld_temp, "vlr_temp": vlr_temp, "kd_temp": kd_temp}
        self.anchor_scale = anchor_scale
        self.topk = topk
        self.batch_average = batch_average
        self.biased_positives = biased_positives
        self.kd_per_class = kd_per_class

    def forward(self, student, teacher, boxes, boxes_valid, strides, cell_offset):
        """The three terms, each the sum over the levels, weighted.

        Args:
            student, teacher: pairs of lists, one entry a level: class logits (N, K, H, W) and edge logits
                (N, 4 * bins, H, W).
            boxes: (N, M, 4) ``x1 y1 x2 y2`` in pixels of the network's input.
            boxes_valid: (N, M), which rows of ``boxes`` are boxes.
            strides: of the levels, in pixels.
            cell_offset: where the centre of an anchor lies in its cell, from 0 to 1.

        Returns:
            Scalars ``main``, ``vlr``, ``kd``.
        """
        sizes = [x.shape[2:] for x in student[0]]
        counts = [height * width for height, width in sizes]
        anchors = square_anchors(sizes, strides, self.anchor_scale, cell_offset)
        assigned, region = atss_regions(anchors, counts, boxes, boxes_valid, self.topk, self.biased_positives)
        assigned, region = (paddle.split(x, counts, axis=1) for x in ((assigned > 0).astype("float32"), region))
        factors = dict(self.weights)
        if self.kd_per_class:
            factors["kd"] *= student[0][0].shape[1] / COCO_CLASSES
        total = dict.fromkeys(factors, 0.0)
        for level in range(len(sizes)):
            ours, theirs = ((cls[level], box[level]) for cls, box in (student, teacher))
            weights = paddle.ones_like(assigned[level])
            terms = ld_terms(
                ours, theirs, assigned[level], weights, region[level], **self.temps, batch_average=self.batch_average
            )
            for name, term in zip(total, terms.values()):
                total[name] = total[name] + term * factors[name]
        return total


def square_anchors(sizes, strides, scale, cell_offset):
    """Square anchors of all levels, one after the other, row by row.

    Args:
        sizes: ``(height, width)`` of each level, in cells.
        strides: of the levels, in pixels.
        scale: side of an anchor in strides.
        cell_offset: where the centre lies in its cell, from 0 (upper left corner) to 1.

    Returns:
        (A, 4) ``x1 y1 x2 y2`` in pixels.
    """
    anchors = []
    for centre, stride in zip(cell_points(sizes, strides, cell_offset), strides):
        half = scale * stride / 2
        anchors.append(paddle.concat([centre - half, centre + half], axis=1))
    return paddle.concat(anchors)


def atss_regions(anchors, num_level_anchors, boxes, boxes_valid, topk=9, biased_positives=False):
    """Positive anchors by ATSS, and the valuable localisation region (VLR) around each box.

    Of each level a box takes the ``topk`` anchors with the nearest centres; its threshold is the
    mean plus the (unbiased) standard deviation of their IoU. Positive are those of them that
    reach the threshold and have their centre inside the box. The region holds **every** anchor
    with ``threshold / 4 <= d < threshold``, where
    ``d = overlap / area of the anchor - rho^2 / c^2``, rho the distance of the centres and c the
    diagonal of the enclosing box. (The paper calls d the distance IoU, which has the area of the
    union there; the authors' code has the anchor's.)

    Args:
        anchors: (A, 4) ``x1 y1 x2 y2``, all levels one after the other.
        num_level_anchors: how many anchors each level has, python ints.
        boxes: (N, M, 4) in the anchors' units; M may be 0.
        boxes_valid: (N, M), which rows of ``boxes`` are boxes.
        topk: anchors per level and box.
        biased_positives: take the biased standard deviation in the threshold of positives, but not in that of the
            region: PaddleDetection's way.

    Returns:
        ``assigned`` (N, A) int64, 0 for background, else 1 + index of the box; where several
        boxes want an anchor, the one of largest IoU. ``vlr_region`` (N, A) float32: the largest
        IoU with a box whose region holds the anchor, 0 where none does.
    """
    with paddle.no_grad():
        boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
        valid = boxes_valid.unsqueeze(-1) > 0
        iou, vlr_distance, centre_distance, inside = _geometry(anchors, boxes)
        nearest = _nearest(centre_distance, num_level_anchors, topk)
        candidates = paddle.take_along_axis(iou, nearest, axis=2)
        mean = candidates.mean(axis=2, keepdim=True)
        squares, count = (candidates - mean).square().sum(axis=2, keepdim=True), candidates.shape[2]
        threshold = mean + (squares / max(count - 1, 1)).sqrt()

        region = valid & (vlr_distance >= 0.25 * threshold) & (vlr_distance < threshold)
        vlr_region = (iou * region.astype("float32")).max(axis=1)

        is_nearest = paddle.put_along_axis(
            paddle.zeros_like(iou), nearest, paddle.ones_like(candidates), axis=2
        )
        if biased_positives:
            threshold = mean + (squares / count).sqrt()
        positive = valid & (is_nearest > 0) & (iou >= threshold) & inside
        claim = paddle.where(positive, iou, paddle.full_like(iou, -1.0))
        assigned = (claim.argmax(axis=1) + 1) * (claim.max(axis=1) >= 0).astype("int64")
    return assigned, vlr_region


def _geometry(anchors, boxes):
    """IoU, the d of :func:`atss_regions`, centre distance and "centre inside", each (N, M, A)."""
    ax1, ay1, ax2, ay2 = anchors.astype("float32").unbind(axis=-1)
    x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(axis=-1)

    def extent(left, top, right, bottom):
        return (right - left).clip(min=0.0), (bottom - top).clip(min=0.0)

    def corners(low, high):
        return low(ax1, x1), low(ay1, y1), high(ax2, x2), high(ay2, y2)

    width, height = extent(*corners(paddle.maximum, paddle.minimum))
    overlap = width * height
    anchor_area = (ax2 - ax1) * (ay2 - ay1)
    box_area = (x2 - x1) * (y2 - y1)
    iou = overlap / (anchor_area + box_area - overlap).clip(min=_EPS)

    width, height = extent(*corners(paddle.minimum, paddle.maximum))
    diagonal = width**2 + height**2 + _EPS
    cx, cy = (ax1 + ax2) / 2, (ay1 + ay2) / 2
    distance = ((x1 + x2) / 2 - cx) ** 2 + ((y1 + y2) / 2 - cy) ** 2
    vlr_distance = overlap / anchor_area.clip(min=_EPS) - distance / diagonal

    margins = paddle.stack([cx - x1, cy - y1, x2 - cx, y2 - cy])
    return iou, vlr_distance, distance.sqrt(), margins.min(axis=0) > _INSIDE


def _nearest(centre_distance, num_level_anchors, topk):
    """Indices (N, M, k) of the ``topk`` nearest anchors of each level."""
    found, start = [], 0
    for count in num_level_anchors:
        level = centre_distance[:, :, start : start + count]
        found.append(paddle.topk(level, min(topk, count), axis=2, largest=False)[1] + start)
        start += count
    return paddle.concat(found, axis=2)
