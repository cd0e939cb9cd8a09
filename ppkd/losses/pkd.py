"""Distillation by Pearson correlation (PKD).

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022 (arXiv 2207.02039): the mean squared error of standardised maps.
"""

import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from .common import assembled, check_same_shape, frozen, full_precision, up
from .normalise import Standardised, per_channel, scaled


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
    return _HalfSquares.apply(student, teacher, unbiased)


class _HalfSquares(PyLayer):
    """``mean((s - t)^2) / 2`` of the standardised maps, and its gradient, without a map beside the gradient's own."""

    @staticmethod
    def forward(ctx, student, teacher, unbiased):
        ours, theirs = (Standardised(x.flatten(2), unbiased) for x in (student, teacher))

        def gap_and_products(*at):
            gap = ours(*at) - theirs(*at)
            return gap.square(), gap * ours.centred(*at)

        squares, products = per_channel(student.flatten(2), gap_and_products)
        ctx.slope = products * ours.slope()
        ctx.sides, ctx.shape = (ours, theirs), student.shape
        return squares.sum() / (2 * student.size)

    @staticmethod
    def backward(ctx, grad):
        ours, theirs = ctx.sides
        grad = grad / (ours.map.size)

        def gradient(images, channels):
            along = scaled(ours(images, channels) - theirs(images, channels), ours.scale[:, channels] * grad)
            return along - scaled(ours.centred(images, channels), ctx.slope[:, channels] * grad)

        return assembled(ours.map, gradient).reshape(ctx.shape), None


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
