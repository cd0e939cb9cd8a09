"""Kullback-Leibler divergence of softened class distributions.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
"""

from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up
from .softmax_kernels import Rows, log_and_softmax, row_sums

REDUCTIONS = ("batchmean", "mean", "sum")


def log_softmax(x, axis):
    """Logarithm of the softmax along an axis.

    Not Paddle's own: on CPU that cuts the logarithm off at -64, which makes a divergence of large
    logits wrong, and it takes half a minute for rows of the length of a feature map.
    """
    return log_and_softmax(x, axis)[0]


def _difference_and_value(student, teacher, tau, axis):
    """p_S - p_T, and the divergence along the axis.

    With d = log p_S - log p_T the divergence is the sum of ``(p_S - p_T) - p_T * d``. That is the usual sum, as both
    distributions add up to one, but each element is small of second order for itself: the sum does not cancel at a high
    temperature. The gradient, p_S - p_T, is exactly zero for equal logits, which differentiating the softmax step by
    step would not give.
    """
    log_s, p_s = log_and_softmax(student / tau, axis)
    log_t, p_t = log_and_softmax(teacher / tau, axis)
    gap = log_s - log_t
    # p_S - p_T = (p_S + p_T) * tanh(gap / 2): neither cancels nor overflows.
    difference = (p_s + p_t) * (gap * 0.5).tanh()
    return difference, row_sums(difference - p_t * gap, axis)


def kl_rows(student, teacher, tau, axis):
    """``sum of p_T * (log p_T - log p_S)`` along ``axis``, with ``p = softmax(x / tau)`` along it.

    Finite for logits of any size. No gradient reaches the teacher.
    """
    return Rows.apply(up(student), frozen(teacher), _difference_and_value, tau, axis)


@full_precision
def kl(student, teacher, tau=1.0, reduction="batchmean"):
    """``tau^2 * KL(softmax(T / tau) || softmax(S / tau))``, softmax over axis 1.

    Args:
        student, teacher: logits (N, K) or (N, K, ...), of equal shape.
        tau: the temperature.
        reduction: ``batchmean`` divides the sum by N only, also for maps; ``mean`` divides by the
            number of elements; ``sum`` does not divide, so it grows with the batch.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes, or an unknown reduction.
    """
    check_same_shape("kl", student, teacher)
    check_choice("kl", "reduction", reduction, REDUCTIONS)
    divisor = {"batchmean": student.shape[0], "mean": student.size, "sum": 1}[reduction]
    return kl_rows(student, teacher, tau, axis=1).sum() * (tau**2 / divisor)


class KLLoss(nn.Layer):
    """:func:`kl` with its options; weighting is the term's business.

    .. code-block:: yaml

        loss: {name: kl, tau: 2.0, reduction: mean}

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, tau=1.0, reduction="batchmean"):
        super().__init__()
        check_choice("kl", "reduction", reduction, REDUCTIONS)
        self.tau = tau
        self.reduction = reduction

    def forward(self, student, teacher):
        return kl(student, teacher, self.tau, self.reduction)
