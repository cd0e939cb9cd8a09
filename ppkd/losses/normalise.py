"""Standardising a feature map per channel, with the statistics of the batch at hand."""

import functools

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .common import full_precision, safe_sqrt, up
from .kernels import channel_sums, difference_, for_each_image, map_of, minus, minus_, product_, square_, times_


@full_precision
def batch_standardise(x, eps=1e-5):
    """``(x - mean) / sqrt(variance + eps)`` per channel over batch and positions.

    Batch normalisation without affine parameters and without running statistics: it uses the
    statistics of the batch in evaluation too. The connectors of the RTMDet distillation recipe
    (MMRazor, MMYOLO) put it on both sides before the channel-wise loss.

    Args:
        x: (N, C, H, W). Its gradient is kept; for a teacher detach it first.
        eps: added to the (biased) variance. A dead channel becomes zero.

    Returns:
        (N, C, H, W).
    """
    x = up(x)
    # Any shift will do: that by one of the values makes a constant channel zero without rounding, which would
    # otherwise be blown up by dividing it by a deviation of its own size.
    # For each image: not two axes to spread at once, see `kernels.of_one_shape`.
    shift = for_each_image(x[:1, :, :1, :1].detach(), x)
    unused = _running(x.shape[1], x.dtype, str(x.place))
    return F.batch_norm(x - shift, *unused, training=True, epsilon=eps)


@functools.lru_cache(maxsize=64)
def _running(channels, dtype, place):
    """The running statistics that Paddle's batch norm wants to write to; nobody reads them, so they are made once."""
    return tuple(paddle.zeros([channels], dtype) for _ in range(2))


@full_precision
def pkd_standardise(x, unbiased=False, eps=1e-6):
    """``(x - mean) / (std + eps)`` per channel over all images and positions of (N, C, H, W).

    ``eps`` is on the standard deviation. A constant channel gives zeros, and its gradient stays
    finite (about ``1 / eps``), as that of the standard deviation at zero is taken as zero.
    """
    return _Standardise.apply(up(x), unbiased, eps)


def centred(x, shift, mean):
    """A map (N, C, P) without its channels' means, which are ``shift + mean``."""
    return minus_(minus(x, shift), mean)


def standardised(x, shift, mean, scale):
    """A map (N, C, P) as :func:`pkd_standardise` makes it, by its `Statistics`."""
    return times_(centred(x, shift, mean), scale)


class Statistics:
    """What :func:`pkd_standardise` needs to know of a map (N, C, P); all are (1, C, 1).

    Attributes:
        middle: ``(shift, mean)`` as :func:`centred` takes them.
        deviation: the standard deviation.
        scale: ``1 / (deviation + eps)``.
        slope: of the factor by the centred values, ``scale^2 / (deviation * count)``; of a constant channel 0.
    """

    def __init__(self, x, unbiased, eps=1e-6):
        count = x.shape[0] * x.shape[2]
        # Any shift will do: that by one of the values makes a constant channel zero without rounding.
        shift = x[:1, :, :1]
        (total,) = channel_sums(lambda x, shift: (minus(x, shift),), [x], [shift])
        self.middle = shift, total / count
        (squares,) = channel_sums(lambda x, *middle: (square_(centred(x, *middle)),), [x], self.middle)
        count = max(count - 1, 1) if unbiased else count
        self.deviation = safe_sqrt(squares / count)
        self.scale = 1 / (self.deviation + eps)
        steep = self.deviation * count
        steep = paddle.where(steep > 0, 1 / paddle.where(steep > 0, steep, paddle.ones_like(steep)), steep * 0)
        self.slope = steep * self.scale.square()


class _Standardise(PyLayer):
    """:func:`pkd_standardise` and its gradient, ``k (g - mean(g)) - c k^2 sum(g c) / (deviation * count)``.

    With k the factor ``1 / (deviation + eps)``, c the centred map and g what arrives.
    """

    @staticmethod
    def forward(ctx, x, unbiased, eps):
        ctx.map, ctx.shape = x.flatten(2), x.shape
        ctx.of = Statistics(ctx.map, unbiased, eps)
        return map_of(standardised, [ctx.map], [*ctx.of.middle, ctx.of.scale]).reshape(x.shape)

    @staticmethod
    @full_precision
    def backward(ctx, grad):
        of, grad = ctx.of, grad.flatten(2)

        def sums(g, x, *middle):
            return g, product_(centred(x, *middle), g)

        total, products = channel_sums(sums, [grad, ctx.map], of.middle)
        mean, slope = total / (grad.shape[0] * grad.shape[2]), of.slope * products

        def gradient(g, x, shift, middle, mean, scale, slope):
            return difference_(times_(minus(g, mean), scale), times_(centred(x, shift, middle), slope))

        return map_of(gradient, [grad, ctx.map], [*of.middle, mean, of.scale, slope]).reshape(ctx.shape)
