"""Softmaxes and divergences of rows, each in the way that suits the device: in pieces on the CPU, at once elsewhere."""

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from . import kernels
from .common import up
from .kernels import map_and_rows


def log_and_softmax(x, axis):
    """Logarithm of the softmax along an axis, see :func:`kl.log_softmax`, and the softmax itself."""
    if not kernels.on_cpu(x):
        return F.log_softmax(x, axis=axis), F.softmax(x, axis=axis)
    if x.ndim > 2 and axis in (-1, x.ndim - 1):
        # Of more than two axes Paddle takes twice as long on the CPU.
        return tuple(y.reshape(x.shape) for y in log_and_softmax(x.reshape([-1, x.shape[-1]]), 1))
    x = x - x.max(axis=axis, keepdim=True)
    exponential = x.exp()
    total = row_sums(exponential, axis).unsqueeze(axis)
    return x - total.log(), exponential * (1 / total)


def shares(x, axis):
    """The softmax along an axis by itself."""
    return log_and_softmax(x, axis)[1] if kernels.on_cpu(x) else F.softmax(x, axis=axis)


def row_sums(x, axis):
    """The sum along an axis."""
    # A product with a constant vector is several times as fast as Paddle's sum.
    return paddle.matmul(x, paddle.ones([x.shape[-1]], x.dtype)) if axis == x.ndim - 1 else x.sum(axis=axis)


class Rows(PyLayer):
    """Values of rows along an axis whose formula gives the gradient along with the value.

    The formula takes student, teacher, tau and axis, and gives ``(difference, value)``: the gradient of a value by the
    student's logits is the difference over tau. The one that there is stands in `kl`; on a device that wants few
    operations it is `_in_few_launches`.
    """

    @staticmethod
    def forward(ctx, student, teacher, formula, tau, axis, logs=False):
        if not kernels.on_cpu(student):
            teacher = teacher if logs else log_shares(teacher, tau, axis)
            difference, value = _in_few_launches(student, teacher, tau, axis)
        elif axis in (-1, student.ndim - 1):
            rows = [x.reshape([1, -1, x.shape[-1]]) for x in (student, teacher)]
            difference, value = map_and_rows(lambda s, t: formula(s, t, tau, 2), *rows, size=2**16)
            difference, value = difference.reshape(student.shape), value.reshape(student.shape[:-1])
        else:
            difference, value = formula(student, teacher, tau, axis)
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


def log_shares(x, tau, axis):
    """``log p``, with ``p = softmax(x / tau)`` along ``axis``, by Paddle's own function: not for the CPU."""
    return F.log_softmax(x if tau == 1 else x / tau, axis=axis)


def rows_of_logs(student, log_t, tau, axis):
    """:func:`kl.kl_rows` of a teacher's `log_shares`, which are used up: not for the CPU.

    Whoever makes a copy of the teacher's logits need not hold it any longer, where a map fewer is less to hold.
    """
    return Rows.apply(up(student), log_t, None, tau, axis, True)


def _in_few_launches(student, log_t, tau, axis):
    """What `kl`'s formula makes where Paddle's softmax is exact, with three maps at a time; ``log_t`` is used up."""
    gap = log_shares(student, tau, axis)
    difference = gap.exp()
    gap.subtract_(log_t)
    p_t = log_t.exp_()
    difference.add_(p_t)
    rest = p_t.multiply_(gap)
    difference.multiply_(gap.scale_(0.5).tanh_())
    del gap
    return difference, (difference - rest).sum(axis=axis)
