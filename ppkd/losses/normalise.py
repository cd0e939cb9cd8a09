"""Standardising a feature map per channel, with the statistics of the batch at hand."""

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .common import assembled, cut_out, full_precision, of_one_shape, over_positions, pieces, safe_sqrt, up


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
    shift = x[:1, :, :1, :1].detach().expand([x.shape[0], -1, 1, 1])
    unused = (paddle.zeros([x.shape[1]], x.dtype) for _ in range(2))
    return F.batch_norm(x - shift, *unused, training=True, epsilon=eps)


@full_precision
def pkd_standardise(x, unbiased=False, eps=1e-6):
    """``(x - mean) / (std + eps)`` per channel over all images and positions of (N, C, H, W).

    ``eps`` is on the standard deviation. A constant channel gives zeros, and its gradient stays
    finite (about ``1 / eps``), as that of the standard deviation at zero is taken as zero.
    """
    return _Standardise.apply(up(x), unbiased, eps)


class Standardised:
    """What :func:`pkd_standardise` makes of a map (N, C, P), piece by piece; all statistics are (1, C, 1)."""

    def __init__(self, x, unbiased, eps=1e-6):
        self.map = x
        count = x.shape[0] * x.shape[2]
        self.count = max(count - 1, 1) if unbiased else count
        # Any shift will do: that by one of the values makes a constant channel zero without rounding.
        self._shift, self._mean = x[:1, :, :1], paddle.zeros([1, x.shape[1], 1], x.dtype)
        (total,) = per_channel(x, lambda *at: (self.centred(*at),))
        self._mean = total / count
        (squares,) = per_channel(x, lambda *at: (self.centred(*at).square(),))
        self.deviation = safe_sqrt(squares / self.count)
        self.scale = 1 / (self.deviation + eps)

    def slope(self):
        """Of the factor by the centred values: ``scale^2 / (deviation * count)``; of a constant channel 0."""
        steep = self.deviation * self.count
        steep = paddle.where(steep > 0, 1 / paddle.where(steep > 0, steep, paddle.ones_like(steep)), steep * 0)
        return steep * self.scale.square()

    def centred(self, images, channels):
        """A piece without its channels' means."""
        piece, shift, mean = of_one_shape(
            cut_out(self.map, images, channels), self._shift[:, channels], self._mean[:, channels]
        )
        return (piece - shift) - mean

    def __call__(self, images, channels):
        return scaled(self.centred(images, channels), self.scale[:, channels])


def scaled(piece, factors):
    """``piece`` (N, C, P) times ``factors`` (1, C, 1)."""
    piece, factors = of_one_shape(piece, factors)
    return piece * factors


def per_channel(x, make):
    """The sums over images and positions, each (1, C, 1), of what ``make(images, channels)`` gives for every piece."""
    found = []
    for images, cut in pieces(x):
        parts = [[over_positions(y).sum(axis=0, keepdim=True) for y in make(images, channels)] for channels in cut]
        found.append([paddle.concat(column, axis=1) for column in zip(*parts)])
    return [sum(column) for column in zip(*found)]


class _Standardise(PyLayer):
    """:func:`pkd_standardise` and its gradient, ``k (g - mean(g)) - c k^2 sum(g c) / (deviation * count)``.

    With k the factor ``1 / (deviation + eps)``, c the centred map and g what arrives.
    """

    @staticmethod
    def forward(ctx, x, unbiased, eps):
        ctx.side, ctx.shape = Standardised(x.flatten(2), unbiased, eps), x.shape
        return assembled(ctx.side.map, ctx.side).reshape(x.shape)

    @staticmethod
    @full_precision
    def backward(ctx, grad):
        side, grad = ctx.side, grad.flatten(2)

        def sums(images, channels):
            piece = cut_out(grad, images, channels)
            return piece, piece * side.centred(images, channels)

        total, products = per_channel(grad, sums)
        mean, slope = total / (grad.shape[0] * grad.shape[2]), side.slope() * products

        def gradient(images, channels):
            piece, middle = of_one_shape(cut_out(grad, images, channels), mean[:, channels])
            along = scaled(piece - middle, side.scale[:, channels])
            return along - scaled(side.centred(images, channels), slope[:, channels])

        return assembled(grad, gradient).reshape(ctx.shape)
