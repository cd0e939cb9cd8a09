"""Distillation by Pearson correlation (PKD).

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022 (arXiv 2207.02039): the mean squared error of standardised maps.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from .common import (
    assembled,
    check_same_shape,
    cut_out,
    frozen,
    full_precision,
    over_positions,
    pieces,
    safe_sqrt,
    up,
)  # fmt: skip
from .normalise import centred_and_variance

_EPS = 1e-6


def pkd_standardise(x, unbiased=False, eps=_EPS):
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
    return _HalfSquares.apply(student, teacher, unbiased)


class _Standardised:
    """What :func:`pkd_standardise` makes of a map (N, C, P), piece by piece; all statistics are (1, C, 1)."""

    def __init__(self, x, unbiased):
        self.map = x
        count = x.shape[0] * x.shape[2]
        self.count = max(count - 1, 1) if unbiased else count
        # Any shift will do: that by one of the values makes a constant channel zero without rounding.
        self._shift, self._mean = x[:1, :, :1], paddle.zeros([1, x.shape[1], 1], x.dtype)
        (total,) = per_channel(x, lambda *at: (self.centred(*at),))
        self._mean = total / count
        (squares,) = per_channel(x, lambda *at: (self.centred(*at).square(),))
        self.deviation = safe_sqrt(squares / self.count)
        self.scale = 1 / (self.deviation + _EPS)

    def centred(self, images, channels):
        """A piece without its channels' means."""
        return (cut_out(self.map, images, channels) - self._shift[:, channels]) - self._mean[:, channels]

    def __call__(self, images, channels):
        return self.centred(images, channels) * self.scale[:, channels]


def per_channel(x, make):
    """The sums over images and positions, each (1, C, 1), of what ``make(images, channels)`` gives for every piece."""
    found = []
    for images, cut in pieces(x):
        parts = [[over_positions(y).sum(axis=0, keepdim=True) for y in make(images, channels)] for channels in cut]
        found.append([paddle.concat(column, axis=1) for column in zip(*parts)])
    return [sum(column) for column in zip(*found)]


class _HalfSquares(PyLayer):
    """``mean((s - t)^2) / 2`` of the standardised maps, and its gradient, without a map beside the gradient's own."""

    @staticmethod
    def forward(ctx, student, teacher, unbiased):
        ours, theirs = (_Standardised(x.flatten(2), unbiased) for x in (student, teacher))

        def gap_and_products(*at):
            gap = ours(*at) - theirs(*at)
            return gap.square(), gap * ours.centred(*at)

        squares, products = per_channel(student.flatten(2), gap_and_products)
        # Of the deviation, on which every value depends; that of a constant channel is taken as having no slope.
        steep = ours.deviation * ours.count
        steep = paddle.where(steep > 0, 1 / paddle.where(steep > 0, steep, paddle.ones_like(steep)), steep * 0)
        ctx.slope = products * steep * ours.scale.square()
        ctx.sides, ctx.shape = (ours, theirs), student.shape
        return squares.sum() / (2 * student.size)

    @staticmethod
    def backward(ctx, grad):
        ours, theirs = ctx.sides
        grad = grad / (ours.map.size)

        def gradient(images, channels):
            along = (ours(images, channels) - theirs(images, channels)) * (ours.scale[:, channels] * grad)
            return along - ours.centred(images, channels) * (ctx.slope[:, channels] * grad)

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
