"""The global context of a map in FGD's relation: a GC block (Cao et al., arXiv 1904.11492)."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import up
from .kernels import for_each_image, layer_norm


def conv(in_channels, out_channels, weight, bias=None):
    """A 1x1 convolution with given initializers; the bias starts at 0 without one."""
    bias = bias or nn.initializer.Constant(0.0)
    return nn.Conv2D(in_channels, out_channels, 1, weight_attr=weight, bias_attr=bias)


def channel_add(channels, zero=False):
    """The context block. Only its last convolution starts at zero: were both zero, no gradient
    would ever reach anything but the last bias."""
    hidden = channels // 2
    bound = channels**-0.5
    uniform = nn.initializer.Constant(0.0) if zero else nn.initializer.Uniform(-bound, bound)
    return nn.Sequential(
        conv(channels, hidden, uniform, uniform),
        nn.LayerNorm([hidden, 1, 1]),
        nn.ReLU(),
        conv(hidden, channels, nn.initializer.Constant(0.0)),
    )


def logits(feature, conv_mask):
    """``conv_mask(F)`` (N, 1, P) of ``feature`` (N, C, P), to one channel, and its weights (1 or N, 1, C)."""
    query = for_each_image(up(conv_mask.weight).reshape([1, 1, -1]), feature)
    return paddle.matmul(query, feature) + up(conv_mask.bias), query


def context_vector(pooled, block):
    """The global context of a map, one vector (N, 1, C) an image, of its pooled values (N, 1, C).

    ``add(sum_p F * softmax_p(conv_mask(F)))``, the inner sum being ``pooled``. All are 1x1 convolutions, here as matrix
    products on their weights, so that nothing of the size of F but itself is needed.
    """
    reduce, norm, _, restore = block
    hidden, scale, shift = _pointwise(pooled, reduce), up(norm.weight), up(norm.bias)
    return _pointwise(F.relu(layer_norm(hidden, scale, shift, norm._epsilon)), restore)


def context_vectors(pooled, blocks):
    """:func:`context_vector` of B maps (N, B, C), each by its block of equal shape."""
    if len(blocks) == 1:
        return context_vector(pooled, blocks[0])
    reduces, norms, _, restores = zip(*blocks)
    hidden = _pointwise_each(pooled.transpose([1, 0, 2]), reduces)
    hidden = F.layer_norm(hidden, hidden.shape[-1:], epsilon=norms[0]._epsilon)
    hidden = hidden * _rows([x.weight for x in norms]) + _rows([x.bias for x in norms])
    return _pointwise_each(F.relu(hidden), restores).transpose([1, 0, 2])


def _pointwise(vectors, conv):
    weight = up(conv.weight).flatten(1)
    return paddle.matmul(vectors, weight, transpose_y=True) + up(conv.bias)


def _pointwise_each(vectors, convs):
    """Of (B, N, C), by a convolution each."""
    weight = paddle.stack([up(conv.weight) for conv in convs]).flatten(2)
    return paddle.matmul(vectors, weight, transpose_y=True) + _rows([conv.bias for conv in convs])


def _rows(vectors):
    return paddle.stack([up(x) for x in vectors]).unsqueeze(1)
