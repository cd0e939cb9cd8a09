"""Focal and Global Distillation (FGD).

Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022 (arXiv
2111.11837). With S the student's map (already of the teacher's shape), T the teacher's, both
(N, C, H, W), and P = H * W positions:

* attention of a map F, for focal distillation: spatial
  ``A(F) = P * softmax_p(mean_c |F| / temp)`` and channel
  ``B(F) = C * softmax_c(mean_p |F| / temp)``;
* ``fg`` and ``bg`` (its feature loss): ``1/N * sum mask * A(T) * B(T) * (S - T)^2`` with the masks
  of :func:`masks.box_masks`;
* ``attention`` (its attention loss): ``1/N * (sum |B(S) - B(T)| + sum |A(S) - A(T)|)``;
* ``relation`` (global distillation): ``1/N * sum (S + c_s - T - c_t)^2``, each c the vector of
  :func:`context_vector`, the same at all positions of an image (a GC block, arXiv 1904.11492).

All four are sums divided by the batch size only; hence the tiny weights.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from . import kernels
from .common import check_choice, check_same_shape, frozen, full_precision, up
from .kernels import constant, map_of, numbers, sums_both_ways, sums_over_channels, whole
from .masks import masks


def attention_maps(feature, temp):
    """A(F) of shape (N, P) and B(F) of shape (N, C) of ``feature`` (N, C, P); see the module."""
    with paddle.no_grad():
        spatial, channel = _shares(feature, temp)
        return feature.shape[2] * spatial, feature.shape[1] * channel


def _shares(feature, temp):
    """A(F) and B(F) over their numbers of positions and channels: the softmaxes alone."""
    return [F.softmax(x) for x in sums_both_ways(paddle.abs, feature, _means(feature, temp))]


def _means(feature, temp):
    """What sums over channels and over positions are multiplied with to be means over ``temp``."""
    return 1 / (feature.shape[1] * temp), 1 / (feature.shape[2] * temp)


class _Sums(PyLayer):
    """The few sums over the student's map that all terms are made of, with the gradient of the map in one go.

    With S and T (N, C, P), d = S - T and a = softmax_p(q S + b), q (C,) and b (1,), the spread (N, P):

        mean_c |S| / temp (N, P), mean_p |S| / temp (N, C), 0 (N, C), sum_p d (N, C), sum_c B d^2 (N, P),
        sum_cp d^2 (N, 1)

    The third has the gradient of S a, whose value is known already. Left to autograd each would make maps of its own
    and a gradient of its own. Here nothing but S and T is kept, and the gradient is ``d * (2 B x g4 + 2 g5) + sign(S) *
    (g0 / C + g1 / P) / temp + g2 x a + q x gl + g3``, g being the gradients of the six and gl that of ``q S``: outer
    products of vectors, made piece by piece.

    All are one tensor (N, ..), and S alone gets a gradient: with more outputs or inputs ``paddle.grad`` of some inputs,
    or of one term after the other, raises, crashes or is wrong.
    """

    @staticmethod
    def forward(ctx, student, teacher, channel_t, query, spread, temp):
        batch, channels, positions = student.shape
        sizes = sums_both_ways(paddle.abs, student, _means(student, temp))
        # One product for both: of the squared error weighted by B(T), and as it is.
        weights = paddle.stack([channel_t, constant(channel_t.shape, channel_t)], axis=1)
        if whole(student):
            gap = student - teacher
            gap_sum = paddle.matmul(gap, constant([positions], gap))
            squares = paddle.matmul(weights, gap.multiply_(gap))
        else:
            ones = constant([batch, positions], student)
            gap_sum = _weighted(student, ones) - _weighted(teacher, ones)
            squares = sums_over_channels(_squared_gap, [student, teacher], weights)
        weighted, plain = squares.unbind(axis=1)
        ctx.save_for_backward(student, teacher, channel_t, query, spread)
        ctx.means = _means(student, temp)
        known = constant(channel_t.shape, student, 0.0)
        return paddle.concat([*sizes, known, gap_sum, weighted, plain.sum(axis=1, keepdim=True)], axis=1)

    @staticmethod
    @full_precision
    def backward(ctx, gradient):
        student, teacher, channel_t, query, spread = ctx.saved_tensor()
        _, channels, positions = student.shape
        g_position, g_channel, g_pooled, g_gap, g_weighted, g_plain = _apart(gradient, channels, positions)
        g_position, g_channel = g_position * ctx.means[0], g_channel * ctx.means[1]
        g_weighted, g_plain = 2 * g_weighted, 2 * g_plain
        g_spread = paddle.matmul(g_pooled.unsqueeze(1), student).squeeze(1)
        g_logits = spread * (g_spread - (spread * g_spread).sum(axis=1, keepdim=True))
        query = query.expand(g_pooled.shape)
        if whole(student):
            slope = paddle.matmul(channel_t.unsqueeze(2), g_weighted.unsqueeze(1)).add_(g_plain.unsqueeze(2))
            slope.multiply_(student - teacher)
            for of_sign in (g_position.unsqueeze(1), g_channel.unsqueeze(2)):  # their sum would be one more map
                slope.add_(student.sign().multiply_(of_sign))
            ways = paddle.stack([g_pooled, query], axis=2), paddle.stack([spread, g_logits], axis=1)
            return slope.add_(paddle.matmul(*ways)).add_(g_gap.unsqueeze(2)), None, None, None, None
        one = constant(spread.shape, spread)
        of_gap = paddle.stack([g_weighted, one], axis=1)
        by_gap = paddle.stack([channel_t, g_plain.expand(channel_t.shape)], axis=2)
        of_sign = paddle.stack([g_position, one], axis=1)
        by_sign = paddle.stack([constant(g_channel.shape, g_channel), g_channel], axis=2)
        of_rest = paddle.stack([spread, g_logits, one], axis=1)
        by_rest = paddle.stack([g_pooled, query, g_gap], axis=2)

        products = [(by_gap, of_gap), (by_sign, of_sign), (by_rest, of_rest)]
        return map_of(_gradient, [student, teacher], products=products), None, None, None, None


def _squared_gap(student, teacher):
    gap = student - teacher
    return gap.multiply_(gap)


def _gradient(student, teacher, of_gap, of_sign, rest):
    return (student - teacher).multiply_(of_gap).add_(student.sign().multiply_(of_sign)).add_(rest)


def _apart(sums, channels, positions):
    """What `_Sums` puts together."""
    return sums.split([positions, channels, channels, channels, positions, 1], axis=1)


def context_vector(pooled, channel_add):
    """The global context of a map, one vector (N, C) an image, of its pooled values (N, C).

    ``add(sum_p F * softmax_p(conv_mask(F)))``, the inner sum being ``pooled``. All are 1x1 convolutions, here as matrix
    products on their weights, so that nothing of the size of F but itself is needed.
    """
    reduce, norm, _, restore = channel_add
    hidden = _pointwise(pooled, reduce)
    # Scale and shift by ourselves: where the scale's own gradient is not asked for (a term that is not trained, or
    # paddle.grad of other tensors), Paddle's layer_norm on the CPU leaves the scale out of its input's gradient.
    hidden = F.layer_norm(hidden, hidden.shape[1:], epsilon=norm._epsilon) * up(norm.weight) + up(norm.bias)
    return _pointwise(F.relu(hidden), restore)


def _pool(feature, conv):
    """``softmax_p(conv(F))`` (N, P) of ``feature`` (N, C, P), a convolution to one channel, and the sum of F that it
    weights (N, C)."""
    query = up(conv.weight).reshape([1, 1, -1])
    if kernels.on_cpu(feature):
        query = query.expand([feature.shape[0], 1, -1])
    spread = F.softmax(paddle.matmul(query, feature).squeeze(1) + up(conv.bias))
    return spread, _weighted(feature, spread)


def _weighted(feature, weights):
    """``sum_p feature * weights`` (N, C) of ``feature`` (N, C, P) and ``weights`` (N, P)."""
    # This way round; the other product of the same numbers takes Paddle eight times as long on the CPU.
    return paddle.matmul(weights.unsqueeze(1), feature, transpose_y=True).squeeze(1)


def _pointwise(vectors, conv):
    weight = up(conv.weight).flatten(1)
    return paddle.matmul(vectors, weight, transpose_y=True) + up(conv.bias)


class FGDLoss(nn.Layer):
    """Focal and Global Distillation of one pair of feature maps; formulas in the module.

    .. code-block:: yaml

        loss: {name: fgd, temp: 0.5, alpha: 0.001, beta: 0.0005, gamma: 0.0005, lambda_: 5.0e-6}

    The parameters (also those on the teacher's side) are trained with the student. Before
    training both context vectors are zero, so ``relation`` begins as a plain sum of squares.

    Args:
        channels: C of the maps, at least 2. Unequal channels are a connector's business.
        temp: the temperature of the attention.
        alpha, beta, gamma, lambda_: the weights of ``fg``, ``bg``, ``attention``, ``relation``.
        box_frame: what the map is taken to stand for when boxes are put on it. ``image``, as the
            authors do, is the image before padding, which stretches the boxes of an image smaller
            than the batch; ``padded`` is the whole padded input.
        zero_context: start both convolutions of the context blocks at zero, as PaddleDetection
            does, which leaves all but the last bias without a gradient for good.

    Raises:
        ValueError: ``box_frame`` is neither, or ``channels`` is below 2.
    """

    def __init__(
        self,
        channels,
        temp=0.5,
        alpha=1e-3,
        beta=5e-4,
        gamma=5e-4,
        lambda_=5e-6,
        box_frame="image",
        zero_context=False,
    ):
        super().__init__()
        check_choice("fgd", "box_frame", box_frame, ("image", "padded"))
        if channels < 2:
            raise ValueError(f"fgd: channels is {channels}, expected at least 2")
        self.temp = temp
        self.weights = {"fg": alpha, "bg": beta, "attention": gamma, "relation": lambda_}
        self.box_frame = box_frame
        self.conv_mask_s = _conv(channels, 1, nn.initializer.KaimingNormal())
        self.conv_mask_t = _conv(channels, 1, nn.initializer.KaimingNormal())
        self.channel_add_s = _channel_add(channels, zero_context)
        self.channel_add_t = _channel_add(channels, zero_context)

    @full_precision
    def forward(self, student, teacher, boxes, boxes_valid, image_size, padded_size):
        """The four terms, weighted.

        Args:
            student, teacher: (N, C, H, W); no gradient reaches the teacher.
            boxes: (N, M, 4) ``x1 y1 x2 y2`` in pixels of the network's input.
            boxes_valid: (N, M), which rows of ``boxes`` are boxes.
            image_size: (N, 2) height and width before padding.
            padded_size: ``(height, width)`` of the network's input.

        Returns:
            Scalars ``fg``, ``bg``, ``attention``, ``relation``.

        Raises:
            ValueError: the two maps differ in shape.
        """
        check_same_shape("fgd", student, teacher)
        batch, channels, *size = student.shape
        positions = size[0] * size[1]
        student, teacher = up(student).flatten(2), frozen(teacher).flatten(2)
        frame = image_size if self.box_frame == "image" else numbers(padded_size, student).unsqueeze(0)
        with paddle.no_grad():
            spatial_t, channel_t = _shares(teacher, self.temp)
            weights = (paddle.stack(masks(boxes, boxes_valid, frame, size)) * spatial_t).flatten(1)
            channel_b = channel_t * channels
        spread, pooled_s = _pool(student.detach(), self.conv_mask_s)
        _, pooled_t = _pool(teacher, self.conv_mask_t)
        query = up(self.conv_mask_s.weight).detach().flatten()
        sums = _Sums.apply(student, teacher, channel_b, query, spread.detach(), self.temp)
        by_position, by_channel, through_map, gap_sum, weighted, plain = _apart(sums, channels, positions)
        context_s = context_vector(pooled_s + through_map, self.channel_add_s)
        context_gap = context_s - context_vector(pooled_t, self.channel_add_t)
        found = paddle.stack(
            [
                *paddle.matmul(weights, weighted.flatten()).unbind(),
                paddle.dist(F.softmax(by_channel), channel_t, p=1),
                paddle.dist(F.softmax(by_position), spatial_t, p=1),
                plain.sum(),
                # The rest of the square written out, so that the context vectors need not be spread over a map.
                (context_gap * (gap_sum * (2 / positions) + context_gap)).sum(),
            ]
        )
        fg, bg, attention, relation = (weight / batch for weight in self.weights.values())
        factors = fg * positions, bg * positions, attention * channels, attention * positions, relation
        found = found * numbers([*factors, relation * positions], found)
        fg, bg, by_channel, by_position, plain, rest = found.unbind()
        return {"fg": fg, "bg": bg, "attention": by_channel + by_position, "relation": plain + rest}


def _conv(in_channels, out_channels, weight, bias=None):
    bias = bias or nn.initializer.Constant(0.0)
    return nn.Conv2D(in_channels, out_channels, 1, weight_attr=weight, bias_attr=bias)


def _channel_add(channels, zero=False):
    """The context block. Only its last convolution starts at zero: were both zero, no gradient
    would ever reach anything but the last bias."""
    hidden = channels // 2
    bound = channels**-0.5
    uniform = nn.initializer.Constant(0.0) if zero else nn.initializer.Uniform(-bound, bound)
    return nn.Sequential(
        _conv(channels, hidden, uniform, uniform),
        nn.LayerNorm([hidden, 1, 1]),
        nn.ReLU(),
        _conv(hidden, channels, nn.initializer.Constant(0.0)),
    )
