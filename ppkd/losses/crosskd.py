"""Cross-Head Knowledge Distillation (CrossKD).

Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024 (arXiv 2306.11369).

The student's features inside of its head go through the teacher's remaining head layers; these *cross-head
predictions*, and not the student's own, are compared with the teacher's predictions:

    L = 1 / |S| * sum over positions r of S(r) * D(cross-head prediction(r), teacher's prediction(r))

with S(r) = 1, the whole map and no selection of a region (the paper's objective of CrossKD, section 3). D is the
quality focal loss for classes; for boxes it is the Kullback-Leibler divergence of LD where a head has edge
distributions, 1 - GIoU where it has none. None of these needs ground truth.

The losses below are D, S and |S|; the student's side comes to them after the teacher's layers. The paper calls |S| the
normalisation and says no more. With S(r) = 1 it is read as the number of positions for boxes. For classes the mean over
positions, all but a few of them background, would be a thousand times weaker than the detection loss it is added to
(which is divided by positives), so there the default is the number of positions in which the teacher sees an object,
and the mean is ``per: cell``.

All maps of one pyramid are one sum: levels weigh by their cells.
"""

from paddle import nn

from .boxes import giou_loss
from .common import check_choice, check_levels, frozen, full_precision, rows, up
from .focal import PER, map_focal
from .ld import ld_rows


class CrossKDClassLoss(nn.Layer):
    """``1 / |S| * sum |sigma(s) - sigma(t)|^beta * BCE(sigma(s), sigma(t))`` over all cells, anchors and classes.

    s is a cross-head logit, t the teacher's. The gradient goes through both factors.

    .. code-block:: yaml

        loss: {name: crosskd_cls, beta: 1.0}

    Args:
        beta: the exponent, at least 1 (below, the gradient of equal logits is infinite).
        per: |S|; see :func:`focal.map_divisor`.

    Raises:
        ValueError: a beta below 1, or an unknown ``per``.
    """

    all_levels = True

    def __init__(self, beta=1.0, per="object"):
        super().__init__()
        if beta < 1:
            raise ValueError(f"crosskd_cls: beta is {beta!r}, expected a number from 1")
        check_choice("crosskd_cls", "per", per, PER)
        self.beta = beta
        self.per = per

    def forward(self, student, teacher):
        """A scalar from lists of class logits (N, A * K, H, W), one entry a level.

        Raises:
            ValueError: unequal shapes.
        """
        return map_focal("crosskd_cls", student, teacher, self.beta, self.per)


class CrossKDBoxLoss(nn.Layer):
    """The mean of ``temp^2 * KL(teacher's edge || cross-head edge)`` over all cells and the four edges of each.

    The divergence of an edge is divided by its number of bins, as :func:`ld.ld_rows` does.

    .. code-block:: yaml

        loss: {name: crosskd_box, temp: 1.0}
        weight: 4.0

    Args:
        temp: the temperature of both softmaxes.
    """

    all_levels = True

    def __init__(self, temp=1.0):
        super().__init__()
        self.temp = temp

    def forward(self, student, teacher):
        """A scalar from lists of edge logits (N, 4 * bins, H, W), the bins of one edge next to each other.

        Raises:
            ValueError: unequal shapes.
        """
        check_levels("crosskd_box", student, teacher)
        return _mean([ld_rows(rows(s, 4), rows(t, 4), self.temp) for s, t in zip(student, teacher)])


class CrossKDGIoULoss(nn.Layer):
    """The mean of 1 - GIoU of the cross-head box and the teacher's, over all cells and anchors.

    .. code-block:: yaml

        loss: {name: crosskd_giou}
    """

    all_levels = True

    @full_precision
    def forward(self, student, teacher):
        """A scalar from lists of maps (N, A * 4, H, W), one entry a level.

        Channels 4 a to 4 a + 3 are the distances left, top, right and bottom of anchor a's predicted box from the point
        of its cell, in one unit for both sides.

        Raises:
            ValueError: unequal shapes.
        """
        check_levels("crosskd_giou", student, teacher)
        pairs = ((rows(up(s), s.shape[1] // 4), rows(frozen(t), t.shape[1] // 4)) for s, t in zip(student, teacher))
        return _mean([giou_loss(*pair) for pair in pairs])


def _mean(levels):
    """The mean over all rows of all levels, each (n,)."""
    return sum(level.sum() for level in levels) / sum(level.size for level in levels)
