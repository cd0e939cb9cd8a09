"""Localisation Distillation (LD).

Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022 (arXiv 2102.12252),
on box edges predicted as distributions (Generalized Focal Loss, arXiv 2006.04388), and the adaptive
selection of anchors of ATSS (arXiv 1912.02424).

"""

import functools

import paddle
import paddle.nn.functional as F
from paddle import nn

from .atss import atss_regions, square_anchors
from .common import COCO_CLASSES, as_float, check_same_shape, full_precision, up
from .kernels import weighted_sums
from .kl import kl_rows
from .level_kernels import edges, parts_of_levels


@full_precision
def ld_rows(student, teacher, temp=10.0, axis=1):
    """``temp^2 * mean over the K bins of p_T * (log p_T - log p_S)``, row by row.

    The mean divides by K, also where the K are classes.

    Args:
        student, teacher: logits (n, K); no gradient reaches the teacher.
        temp: the temperature.
        axis: of the bins, in tensors of more dimensions.

    Returns:
        (n,).

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("ld", student, teacher)
    return kl_rows(student, teacher, temp, axis) * (temp**2 / student.shape[axis])


@full_precision
def ld_parts(
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
    """The three parts of one pyramid level, unweighted.

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
    positive, label_weights, vlr_region = (as_float(x.flatten()) for x in (positive, label_weights, vlr_region))
    score = F.sigmoid(up(student_cls.detach()).max(axis=1).flatten())
    share = 1 / batch if batch_average else 1.0
    kd_weights = label_weights * positive / positive.sum().clip(min=1.0)
    (kd,) = weighted_sums(lambda s, t: ld_rows(s, t, kd_temp), [student_cls, teacher_cls], [kd_weights])

    def of_edges(temp, *weights):
        return weighted_sums(lambda s, t: _of_edges(s, t, temp), [student_box, teacher_box], weights)

    if vlr_temp == ld_temp:
        ld, ld_vlr = of_edges(ld_temp, score * positive, vlr_region)
    else:
        (ld,), (ld_vlr,) = of_edges(ld_temp, score * positive), of_edges(vlr_temp, vlr_region)
    ld, ld_vlr = ld * (share / 4), ld_vlr * (share / 16)
    return {"ld": ld, "ld_vlr": ld_vlr, "kd": kd}


def _of_edges(student, teacher, temp):
    """:func:`ld_rows` of the four edges of each position (R, 4 * bins), or (N, 4 * bins, P), their sum."""
    return ld_rows(edges(student), edges(teacher), temp, axis=2).sum(axis=1)


class LDLoss(nn.Layer):
    """Localisation distillation of all levels of a head at once; formulas in :func:`ld_parts`.

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
        batch_average: see :func:`ld_parts`.
        biased_positives: see :func:`atss_regions`.
        kd_per_class: multiply ``kd_weight`` by classes / 80. ``kd`` is a mean over the classes, so that a weight chosen
            for COCO is too strong by that factor where there are fewer.
    """

    all_levels = True
    compares = ("class logits", "edge logits")

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
        """The three parts, each the sum over the levels, weighted.

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
        place = str(student[0][0].place)
        anchors = _anchors(tuple(map(tuple, sizes)), tuple(strides), self.anchor_scale, cell_offset, place)
        assigned, region = atss_regions(anchors, counts, boxes, boxes_valid, self.topk, self.biased_positives)
        assigned = assigned.clip(max=1).astype("float32")
        factors = dict(self.weights)
        if self.kd_per_class:
            factors["kd"] *= student[0][0].shape[1] / COCO_CLASSES
        most = max(boxes.shape[1], 1) * sum(min(self.topk, count) for count in counts)
        options = self.temps | {"batch_average": self.batch_average}
        parts = parts_of_levels(ld_parts, student, teacher, assigned, region, counts, most, **options)
        by_name = zip(factors.items(), zip(*(each.values() for each in parts)))
        return {name: functools.reduce(paddle.add, values) * factor for (name, factor), values in by_name}


# Constants are made once a size, on the device where they are needed.
@functools.lru_cache(maxsize=64)
def _anchors(sizes, strides, scale, cell_offset, place):
    return square_anchors(sizes, strides, scale, cell_offset)
