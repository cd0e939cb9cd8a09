"""Kullback-Leibler divergence of softened class distributions.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 2.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from . import kernels
from .common import check_choice, check_same_shape, frozen, full_precision, up
from .kernels import map_and_rows

REDUCTIONS = ("batchmean", "mean", "sum")


def log_softmax(x, axis):
    """Logarithm of the softmax along an axis.

    Not Paddle's own: on CPU that cuts the logarithm off at -64, which makes a divergence of large
    logits wrong, and it takes half a minute for rows of the length of a feature map.
    """
    return log_and_softmax(x, axis)[0]


def log_and_softmax(x, axis):
    """:func:`log_softmax` and the softmax itself."""
    if not kernels.on_cpu(x):
        found = F.log_softmax(x, axis=axis)
        return found, found.exp()
    x = x - x.max(axis=axis, keepdim=True)
    exponential = x.exp()
    total = _sum(exponential, axis).unsqueeze(axis)
    return x - total.log(), exponential * (1 / total)


def _sum(x, axis):
    # A product with a constant vector is several times as fast as Paddle's sum.
    return paddle.matmul(x, paddle.ones([x.shape[-1]], x.dtype)) if axis == x.ndim - 1 else x.sum(axis=axis)


class _KLRows(PyLayer):
    """With d = log p_S - log p_T the divergence is the sum of ``(p_S - p_T) - p_T * d``.

    That is the usual sum, as both distributions add up to one, but each element is small of second
    order for itself: the sum does not cancel at a high temperature. The gradient, p_S - p_T, is
    exactly zero for equal logits, which differentiating the softmax step by step would not give.
    """

    @staticmethod
    def forward(ctx, student, teacher, tau, axis, logs=False):
        if not kernels.on_cpu(student):
            teacher = teacher if logs else log_shares(teacher, tau, axis)
            difference, value = _in_few_launches(student, teacher, tau, axis)
        elif axis in (-1, student.ndim - 1):
            rows = [x.reshape([1, -1, x.shape[-1]]) for x in (student, teacher)]
            difference, value = map_and_rows(lambda s, t: _difference_and_value(s, t, tau, 2), *rows, size=2**16)
            difference, value = difference.reshape(student.shape), value.reshape(student.shape[:-1])
        else:
            difference, value = _difference_and_value(student, teacher, tau, axis)
        ctx.save_for_backward(difference)
        ctx.tau, ctx.axis = tau, axis
        return value

    @staticmethod
    def backward(ctx, grad):
        (difference,) = ctx.saved_tensor()
        grad = (grad / ctx.tau).unsqueeze(ctx.axis)
        if ctx.axis not in (-1, difference.ndim - 1) or not kernels.on_cpu(difference):
            return difference * grad, None
        rows = [x.reshape([1, -1, x.shape[-1]]) for x in (difference, grad)]
        (product,) = map_and_rows(lambda d, g: (d * g,), *rows)
        return product.reshape(difference.shape), None


def _difference_and_value(student, teacher, tau, axis):
    """p_S - p_T, and the divergence along the axis."""
    log_s, p_s = log_and_softmax(student / tau, axis)
    log_t, p_t = log_and_softmax(teacher / tau, axis)
    gap = log_s - log_t
    # p_S - p_T = (p_S + p_T) * tanh(gap / 2): neither cancels nor overflows.
    difference = (p_s + p_t) * (gap * 0.5).tanh()
    return difference, _sum(difference - p_t * gap, axis)


def log_shares(x, tau, axis):
    """``log p``, with ``p = softmax(x / tau)`` along ``axis``, by Paddle's own function: not for the CPU."""
    return F.log_softmax(x if tau == 1 else x / tau, axis=axis)


def _in_few_launches(student, log_t, tau, axis):
    """`_difference_and_value` where Paddle's own softmax is exact, with three maps at a time; ``log_t`` is used up."""
    gap = log_shares(student, tau, axis)
    difference = gap.exp()
    gap.subtract_(log_t)
    p_t = log_t.exp_()
    difference.add_(p_t)
    rest = p_t.multiply_(gap)
    difference.multiply_(gap.scale_(0.5).tanh_())
    del gap
    return difference, (difference - rest).sum(axis=axis)


def kl_rows(student, teacher, tau, axis):
    """``sum of p_T * (log p_T - log p_S)`` along ``axis``, with ``p = softmax(x / tau)`` along it.

    Finite for logits of any size. No gradient reaches the teacher.
    """
    return _KLRows.apply(up(student), frozen(teacher), tau, axis)


def kl_rows_of_logs(student, log_t, tau, axis):
    """:func:`kl_rows` of a teacher's `log_shares`, which are used up: not for the CPU.

    Whoever makes a copy of the teacher's logits need not hold it any longer, where a map fewer is less to hold.
    """
    return _KLRows.apply(up(student), log_t, tau, axis, True)


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
