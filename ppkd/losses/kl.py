"""Kullback-Leibler divergence of softened class distributions.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up

REDUCTIONS = ("batchmean", "mean", "sum")


def kl_elements(student, teacher, tau, axis):
    """``p_T * (log p_T - log p_S)`` with ``p = softmax(x / tau)`` along ``axis``, element-wise.

    Through log-softmax, so finite for logits of any size. No gradient reaches the teacher.
    """
    log_student = F.log_softmax(up(student) / tau, axis=axis)
    log_teacher = F.log_softmax(frozen(teacher) / tau, axis=axis)
    return log_teacher.exp() * (log_teacher - log_student)


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
    return kl_elements(student, teacher, tau, axis=1).sum() * (tau**2 / divisor)


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
