"""Distillation from a stronger teacher by correlations (DIST).

Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022 (arXiv 2205.10536):
inter-class and intra-class relations.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_same_shape, frozen, full_precision, safe_sqrt, up


def _pearson(a, b, eps=1e-8):
    """The correlation of each row of ``a`` with that of ``b``, (rows, n) to (rows,)."""
    a = a - a.mean(axis=1, keepdim=True)
    b = b - b.mean(axis=1, keepdim=True)
    norms = safe_sqrt((a * a).sum(axis=1)) * safe_sqrt((b * b).sum(axis=1))
    return (a * b).sum(axis=1) / (norms + eps)


@full_precision
def dist_parts(student, teacher, tau=1.0):
    """One minus the mean correlation of class distributions, in two directions.

    With ``p = softmax(x / tau)`` over classes: ``inter`` correlates the class vectors sample by
    sample, ``intra`` the values of each class over the samples.

    Args:
        student, teacher: logits (N, K), or (N, K, ...) with every position a sample.
        tau: the temperature.

    Returns:
        Scalars ``inter`` and ``intra``, without ``tau^2``.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("dist", student, teacher)
    p_student = F.softmax(_as_rows(up(student)) / tau, axis=1)
    p_teacher = F.softmax(_as_rows(frozen(teacher)) / tau, axis=1)
    return {
        "inter": 1 - _pearson(p_student, p_teacher).mean(),
        "intra": 1 - _pearson(p_student.t(), p_teacher.t()).mean(),
    }


def _as_rows(logits):
    if logits.ndim == 2:
        return logits
    return logits.flatten(2).transpose([0, 2, 1]).flatten(0, 1)


class DISTLoss(nn.Layer):
    """The parts of :func:`dist_parts`, each times its weight and ``tau^2``.

    With a single sample ``intra`` has nothing to correlate and is constant.

    .. code-block:: yaml

        loss: {name: dist, tau: 1.0, inter_weight: 2.0, intra_weight: 2.0}
    """

    def __init__(self, tau=1.0, inter_weight=1.0, intra_weight=1.0):
        super().__init__()
        self.tau = tau
        self.weights = {"inter": inter_weight, "intra": intra_weight}

    def forward(self, student, teacher):
        parts = dist_parts(student, teacher, self.tau)
        return {name: part * (self.tau**2 * self.weights[name]) for name, part in parts.items()}
