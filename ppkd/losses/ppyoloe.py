"""Logit distillation of PP-YOLOE heads: classes, boxes and edge distributions, as PaddleDetection 2.6 defines it.

The class part is the quality focal loss (Li et al., NeurIPS 2020) with the teacher's scores for targets (`focal`); GIoU
(Rezatofighi et al., CVPR 2019) stands in `boxes`.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .boxes import expected, giou_loss
from .common import COCO_CLASSES, as_float, as_type, check_same_shape, frozen, full_precision, up
from .focal import quality_focal
from .kernels import numbers
from .kl import kl_rows
from .ranks import averaged
from .softmax_kernels import log_and_softmax, shares

_EPS = 1e-10
# Where nothing is assigned, the positions at which the teacher's best class has this score count as objects.
_SEEN = 0.1
_NAMES = ("class", "iou", "dfl", "kd")


def ppyoloe_parts(student, teacher, scores, positive, kd_temp=10.0, beta=2.0, first_bin=0, batch_floor=False):
    """The parts of all levels together, unweighted.

    With w the sum of a position's assigned scores where it is positive, 0 elsewhere:

    * ``class``: :func:`soft_quality_focal` of the class logits of all positions, over the sum of w, at least 1/8 an
      image;
    * ``iou``: the mean, weighted by w, of 1 - GIoU of the student's and the teacher's box;
    * ``dfl``: the mean, weighted by w, of the cross-entropy of the student's edge distributions against the
      teacher's, averaged over the four edges;
    * ``kd``: :func:`ld.ld_rows` of the class *probabilities* (sigmoids, not logits) of positive positions, their mean.

    Under several ranks the divisors are averages over the ranks, as those of PP-YOLOE's own loss.

    Args:
        student, teacher: pairs ``(classes (N, A, K), edges (N, A, 4 * bins))`` of logits.
        scores: (N, A, K), the soft targets that the student's own loss was assigned.
        positive: (N, A), 1 at positions with a target.
        kd_temp: temperature of ``kd``.
        beta: exponent of ``class``.
        first_bin: what the first bin of a distribution means, in strides.
        batch_floor: let the divisor of ``class`` be at least 1 for the whole batch, as PaddleDetection does: the same
            for its 8 images a GPU; for other numbers a batch with few targets then depends on the batch size.

    Returns:
        Scalars ``class``, ``iou``, ``dfl``, ``kd``; all but the first are 0, but connected, without a positive.

    Raises:
        ValueError: unequal shapes.
    """
    factors = dict.fromkeys(_NAMES, 1.0)
    options = kd_temp, beta, first_bin, batch_floor
    return _weighted(student, teacher, scores, positive, factors, *options)


@full_precision
def _weighted(student, teacher, scores, positive, factors, kd_temp, beta, first_bin, batch_floor):
    """The parts of :func:`ppyoloe_parts` that ``factors`` has, each times its factor: in few operations on scalars."""
    for ours, theirs in zip(student, teacher):
        check_same_shape("ppyoloe", ours, theirs)
    (s_cls, s_box), (t_cls, t_box) = map(up, student), map(frozen, teacher)
    batch, cells, classes = s_cls.shape
    positive = as_type(positive, s_cls.dtype)
    weight = as_type(as_float(scores).sum(axis=-1), s_cls.dtype) * positive
    found = {}  # name -> (N,)
    if "class" in factors or "kd" in factors:
        p_s, p_t = F.sigmoid(s_cls), F.sigmoid(t_cls)
    if "class" in factors:
        found["class"] = quality_focal(s_cls, p_t, beta, p_s).sum(axis=[1, 2])
    if "iou" in factors or "dfl" in factors:
        s_box, t_box = (x.reshape([batch, cells, 4, x.shape[2] // 4]) for x in (s_box, t_box))
        # Both shares alike, so that equal boxes are equal to the bit.
        (log_s, shares_s), shares_t = log_and_softmax(s_box, axis=-1), shares(t_box, axis=-1)
    if "iou" in factors:
        found["iou"] = paddle.dot(giou_loss(expected(shares_s, first_bin), expected(shares_t, first_bin)), weight)
    if "dfl" in factors:
        found["dfl"] = paddle.dot((shares_t * log_s).sum(axis=[2, 3]), weight)
    if "kd" in factors:
        # `ld_rows`, but for its constant factor.
        found["kd"] = paddle.dot(kl_rows(p_s, p_t, kd_temp, 2), positive)
    # What each sum is divided by: the sum of the weights or the number of positives, and by less than any weight where
    # there is none, as the sum over it is 0.
    floors = {"class": 1.0 if batch_floor else batch / 8, "iou": _EPS, "dfl": _EPS, "kd": 1.0}
    divisors = averaged(paddle.stack([positive if name == "kd" else weight for name in found]).sum(axis=[1, 2]))
    divisors = paddle.maximum(divisors, numbers([floors[name] for name in found], divisors, divisors.dtype))
    own = {"dfl": -0.25, "kd": kd_temp**2 / classes}
    given = numbers([factors[name] * own.get(name, 1.0) for name in found], divisors, divisors.dtype)
    return dict(zip(found, (paddle.stack([*found.values()]).sum(axis=1) * (given / divisors)).unbind()))


class PPYOLOELoss(nn.Layer):
    """:func:`ppyoloe_parts` of all levels of a head, weighted.

    .. code-block:: yaml

        student: ["head.cls[*]", "head.box_dist[*]"]
        teacher: ["head.cls[*]", "head.box_dist[*]"]
        loss: {name: ppyoloe, class_weight: 1.0, iou_weight: 2.5, dfl_weight: 0.5, kd_weight: 20000}

    Args:
        class_weight, iou_weight, dfl_weight, kd_weight: the weights of the parts.
        kd_temp, beta: see :func:`ppyoloe_parts`.
        kd_per_class: multiply ``kd_weight`` by (classes / 80)^2. The mean over the classes and a softmax that is all
            but flat each divide ``kd`` by the number of classes; this makes a weight chosen for COCO mean the same
            elsewhere. False is PaddleDetection's way.
        batch_floor: see :func:`ppyoloe_parts`.
    """

    all_levels = True
    compares = ("class logits", "edge logits")

    def __init__(
        self,
        class_weight=1.0,
        iou_weight=2.5,
        dfl_weight=0.5,
        kd_weight=0.0,
        kd_temp=10.0,
        beta=2.0,
        kd_per_class=True,
        batch_floor=False,
    ):
        super().__init__()
        self.weights = {"class": class_weight, "iou": iou_weight, "dfl": dfl_weight, "kd": kd_weight}
        self.kd_temp = kd_temp
        self.beta = beta
        self.kd_per_class = kd_per_class
        self.batch_floor = batch_floor

    def forward(self, student, teacher, assignment=None, first_bin=0):
        """The weighted parts whose weight is not 0.

        Args:
            student, teacher: pairs of lists, one entry a level: class logits (N, K, H, W) and edge logits
                (N, 4 * bins, H, W).
            assignment: `context.Assignment` of the student's loss; None for images without labels, where the
                teacher's best score stands in for the assigned ones, at positions where it is 0.1 or more.
            first_bin: what the first bin of a distribution means, in strides.
        """
        classes = student[0][0].shape[1]
        student, teacher = (tuple(_rows(levels) for levels in side) for side in (student, teacher))
        if assignment is not None:
            targets = assignment.scores, assignment.positive
        else:
            best = F.sigmoid(frozen(teacher[0])).max(axis=-1)
            targets = best.unsqueeze(-1), as_float(best >= _SEEN)
        weights = dict(self.weights)
        if self.kd_per_class:
            weights["kd"] *= (classes / COCO_CLASSES) ** 2
        weights = {name: weight for name, weight in weights.items() if weight}
        options = self.kd_temp, self.beta, first_bin, self.batch_floor
        return _weighted(student, teacher, *targets, weights, *options)


def _rows(levels):
    """Maps (N, C, H, W) of all levels as (N, A, C)."""
    # Up first: on CPU Paddle 2 cannot differentiate a concatenation of bfloat16.
    return paddle.concat([up(x).flatten(2) for x in levels], axis=2).transpose([0, 2, 1])
