"""Decoupled Knowledge Distillation (DKD).

Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022 (arXiv 2203.08679): TCKD and NCKD.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up
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
def dkd_terms(student, teacher, labels, tau=1.0, reduction="batchmean"):
    """KL divergence split into the target class against the rest, and the rest among itself.

    ``tckd = tau^2 * KL`` of the two-way distributions (target, all others) of
    ``softmax(x / tau)``; ``nckd = tau^2 * KL`` of the softmax without the target.

    Args:
        student, teacher: logits (N, K); no gradient reaches the teacher.
        labels: (N,) integers, 0 to K - 1.
        tau: the temperature.
        reduction: ``batchmean`` divides the sum by N; ``sum`` does not, so it grows with N.

    Returns:
        Scalars ``tckd`` and ``nckd``.

    Raises:
        ValueError: unequal shapes, or an unknown reduction.
    """
    check_same_shape("dkd", student, teacher)
    check_choice("dkd", "reduction", reduction, REDUCTIONS)
    student, teacher = up(student) / tau, frozen(teacher) / tau
    one_hot = F.one_hot(labels, student.shape[1]).astype(student.dtype)
    target = kl_rows(
        _target_or_other(student, one_hot), _target_or_other(teacher, one_hot), tau=1.0, axis=1
    )
    far = _FAR * one_hot
    others = kl_rows(student - far, teacher - far, tau=1.0, axis=1)
    scale = tau**2 / (student.shape[0] if reduction == "batchmean" else 1)
    return {"tckd": target.sum() * scale, "nckd": others.sum() * scale}


class DKDLoss(nn.Layer):
    """``alpha * tckd`` and ``beta * nckd`` of :func:`dkd_terms`.

    .. code-block:: yaml

        loss: {name: dkd, tau: 4.0, alpha: 1.0, beta: 8.0}

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
        terms = dkd_terms(student, teacher, labels, self.tau, self.reduction)
        return {name: term * self.weights[name] for name, term in terms.items()}
