"""The global context of a map in FGD's relation: a GC block (Cao et al., arXiv 1904.11492)."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import up
from .kernels import for_each_image, layer_norm


def conv_mask(channels):
    """The 1x1 convolution to one channel whose softmax says where to look.

    The authors' has a bias. A softmax sees none, so that one learns nothing; here there is none.
    """
    return nn.Linear(channels, 1, weight_attr=nn.initializer.KaimingNormal(), bias_attr=False)


def channel_add(channels, zero=False):
    """The context block, of vectors (..., C). Only its last layer starts at zero: were both zero, no gradient would
    ever reach anything but the last bias."""
    hidden = channels // 2
    bound = channels**-0.5
    none = nn.initializer.Constant(0.0)
    uniform = none if zero else nn.initializer.Uniform(-bound, bound)
    return nn.Sequential(
        nn.Linear(channels, hidden, uniform, uniform),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, channels, none, none),
    )


def logits(feature, mask):
    """What a `conv_mask` makes of ``feature`` (N, C, P), (N, 1, P), and its weights (1 or N, 1, C)."""
    weight = for_each_image(up(mask.weight).reshape([1, 1, -1]), feature)
    return paddle.matmul(weight, feature), weight


def context_vector(pooled, block):
    """The global context of a map, one vector (N, 1, C) an image, of its pooled values (N, 1, C).

    ``add(sum_p F * softmax_p(conv_mask(F)))``, the inner sum being ``pooled``. All are 1x1 convolutions, and held as
    the matrices that they are: to see a kernel (C', C, 1, 1) as one is an operation, forward and backward.
    """
    reduce, norm, _, restore = block
    hidden, scale, shift = _linear(pooled, reduce), up(norm.weight), up(norm.bias)
    return _linear(F.relu(layer_norm(hidden, scale, shift, norm._epsilon)), restore)


def context_vectors(pooled, blocks):
    """:func:`context_vector` of B maps (N, B, C), each by its block of equal shape."""
    if len(blocks) == 1:
        return context_vector(pooled, blocks[0])
    reduces, norms, _, restores = zip(*blocks)
    hidden = _linear_each(pooled.transpose([1, 0, 2]), reduces)
    hidden = F.layer_norm(hidden, hidden.shape[-1:], epsilon=norms[0]._epsilon)
    hidden = hidden * _rows([x.weight for x in norms]) + _rows([x.bias for x in norms])
    return _linear_each(F.relu(hidden), restores).transpose([1, 0, 2])


def _linear(vectors, layer):
    # Not paddle.addmm: Paddle (2.6.2 and 3.3.1) crashes where `paddle.grad` asks it for some of its gradients.
    return F.linear(vectors, up(layer.weight), up(layer.bias))


def _linear_each(vectors, layers):
    """Of (B, N, C), by a layer each."""
    weight = paddle.stack([up(layer.weight) for layer in layers])
    return paddle.matmul(vectors, weight) + _rows([layer.bias for layer in layers])


def _rows(vectors):
    return paddle.stack([up(x) for x in vectors]).unsqueeze(1)
