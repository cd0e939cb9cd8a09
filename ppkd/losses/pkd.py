"""Distillation by Pearson correlation (PKD).

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022 (arXiv 2207.02039): the mean squared error of standardised maps.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_same_shape, frozen, full_precision, safe_sqrt, up
from .normalise import centred_and_variance


def pkd_standardise(x, unbiased=False, eps=1e-6):
    """``(x - mean) / (std + eps)`` per channel over all images and positions of (N, C, H, W).

    ``eps`` is on the standard deviation. A constant channel gives zeros, and its gradient stays
    finite (about ``1 / eps``), as that of the standard deviation at zero is taken as zero.
    """
    centred, variance = centred_and_variance(x)
    if unbiased:
        count = x.size // x.shape[1]
        variance = variance * (count / max(count - 1, 1))
    return centred / (safe_sqrt(variance) + eps)


@full_precision
def pkd(student, teacher, resize_student=True, unbiased=False):
    """``mean((s - t)^2) / 2`` of the standardised maps: one minus their correlation.

    If the heights differ, one map is first resized bilinearly (corners not aligned).

    Args:
        student, teacher: (N, C, H, W) with equal N and C; no gradient reaches the teacher.
        resize_student: which map is resized: the student's, else the teacher's.
        unbiased: divide the variance by n - 1 instead of n. The authors' code does; then a batch
            of two copies of an image differs a little from one of the image alone.

    Returns:
        A scalar.

    Raises:
        ValueError: the maps differ in N or C, or in the width alone.
    """
    student, teacher = up(student), frozen(teacher)
    if student.shape[2] != teacher.shape[2]:
        if resize_student:
            student = _resize(student, teacher.shape[2:])
        else:
            teacher = _resize(teacher, student.shape[2:])
    check_same_shape("pkd", student, teacher)
    gap = pkd_standardise(student, unbiased) - pkd_standardise(teacher, unbiased)
    return (gap * gap).mean() / 2


def _resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, align_mode=0)


class PKDLoss(nn.Layer):
    """:func:`pkd` with its options; weighting is the term's business.

    The recipe takes the four finest FPN outputs, weight 6 each (10 from a very strong teacher).
    There are no parameters, so channels must agree or a connector stand before it.

    .. code-block:: yaml

        loss: {name: pkd}
        weight: 6.0
    """

    def __init__(self, resize_student=True, unbiased=False):
        super().__init__()
        self.resize_student = resize_student
        self.unbiased = unbiased

    def forward(self, student, teacher):
        return pkd(student, teacher, self.resize_student, self.unbiased)
