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
        return feature.shape[2] * spatial.squeeze(1), feature.shape[1] * channel.squeeze(1)


def _shares(feature, temp):
    """A(F) (N, 1, P) and B(F) (N, 1, C) over their numbers of positions and channels: the softmaxes alone."""
    return [F.softmax(x) for x in sums_both_ways(paddle.abs, feature, _means(feature, temp))]


def _means(feature, temp):
    """What sums over channels and over positions are multiplied with to be means over ``temp``."""
    return 1 / (feature.shape[1] * temp), 1 / (feature.shape[2] * temp)


class _Sums(PyLayer):
    """The few sums over the student's map that all terms are made of, with the gradient of the map in one go.

    With S and T (N, C, P), d = S - T, q (N, 1, C) and a (N, 1, P), each of the following (N, 1, ..):

        mean_c |S| / temp, mean_p |S| / temp, 0 (P), 0 (C), 2/P * sum_p d, sum_c B / C d^2, sum_c d^2

    The two zeros have the gradients of ``q S`` and of ``S a``, whose values are known already. Left to autograd each
    would make maps of its own and a gradient of its own. Here nothing but S and T is kept, and the gradient is
    ``2 d * (B / C x g5 + g6) + sign(S) * (g0 / C + g1 / P) / temp + q x g2 + g3 x a + 2/P * g4``, g being the gradients
    of the seven: outer products of vectors, made piece by piece.

    All are one tensor, and S alone gets a gradient: with more outputs or inputs ``paddle.grad`` of some inputs, or of
    one term after the other, raises, crashes or is wrong.
    """

    @staticmethod
    def forward(ctx, student, teacher, channel_t, query, spread, temp):
        batch, channels, positions = student.shape
        sizes = sums_both_ways(paddle.abs, student, _means(student, temp))
        # One product for both: of the squared error weighted by B(T) / C, and as it is.
        weights = paddle.concat([channel_t, constant(channel_t.shape, channel_t)], axis=1)
        share = constant(spread.shape, student, 2 / positions)
        if whole(student):
            gap = student - teacher
            gap_sum = _weighted(gap, share)
            squares = paddle.matmul(weights, gap.multiply_(gap))
        else:
            gap_sum = _weighted(student, share) - _weighted(teacher, share)
            squares = sums_over_channels(_squared_gap, [student, teacher], weights)
        ctx.save_for_backward(student, teacher, weights, query, spread, share)
        ctx.means = _means(student, temp)
        known = [constant([batch, 1, n], student, 0.0) for n in (positions, channels)]
        return paddle.concat([*sizes, *known, gap_sum, squares.reshape([batch, 1, -1])], axis=2)

    @staticmethod
    @full_precision
    def backward(ctx, gradient):
        student, teacher, weights, query, spread, share = ctx.saved_tensor()
        batch, channels, positions = student.shape
        g_position, g_channel, g_logits, g_pooled, g_gap, g_squares = _apart(gradient, channels, positions, 2)
        g_position, g_channel = g_position * ctx.means[0], g_channel * ctx.means[1]
        g_squares = (2 * g_squares).reshape([batch, 2, positions])
        of_rest = paddle.concat([spread, g_logits, share], axis=1)
        by_rest = paddle.concat([g_pooled, query, g_gap], axis=1)
        if whole(student):
            slope = paddle.matmul(weights, g_squares, transpose_x=True)
            slope.multiply_(student - teacher)
            for of_sign in (g_position, g_channel.reshape([batch, channels, 1])):  # their sum would be one more map
                slope.add_(student.sign().multiply_(of_sign))
            return slope.add_(paddle.matmul(by_rest, of_rest, transpose_x=True)), None, None, None, None
        of_sign = paddle.concat([g_position, constant(spread.shape, spread)], axis=1)
        by_sign = paddle.concat([constant(g_channel.shape, g_channel), g_channel], axis=1)
        products = [(weights, g_squares), (by_sign, of_sign), (by_rest, of_rest)]
        products = [(by.transpose([0, 2, 1]), of) for by, of in products]
        return map_of(_gradient, [student, teacher], products=products), None, None, None, None


def _squared_gap(student, teacher):
    gap = student - teacher
    return gap.multiply_(gap)


def _gradient(student, teacher, of_gap, of_sign, rest):
    return (student - teacher).multiply_(of_gap).add_(student.sign().multiply_(of_sign)).add_(rest)


def _apart(sums, channels, positions, last=1):
    """What `_Sums` puts together, its last two as one if `last` is 2."""
    sizes = [positions, channels, positions, channels, channels, *[last * positions] * (3 - last)]
    return sums.split(sizes, axis=2)


def context_vector(pooled, channel_add):
    """The global context of a map, one vector (N, 1, C) an image, of its pooled values (N, 1, C).

    ``add(sum_p F * softmax_p(conv_mask(F)))``, the inner sum being ``pooled``. All are 1x1 convolutions, here as matrix
    products on their weights, so that nothing of the size of F but itself is needed.
    """
    reduce, norm, _, restore = channel_add
    hidden, scale, shift = _pointwise(pooled, reduce), up(norm.weight), up(norm.bias)
    if kernels.on_cpu(pooled):
        # Scale and shift by ourselves: where the scale's own gradient is not asked for (a term that is not trained, or
        # paddle.grad of other tensors), Paddle's layer_norm on the CPU leaves the scale out of its input's gradient.
        hidden = F.layer_norm(hidden, hidden.shape[-1:], epsilon=norm._epsilon) * scale + shift
    else:
        hidden = F.layer_norm(hidden, hidden.shape[-1:], scale, shift, norm._epsilon)
    return _pointwise(F.relu(hidden), restore)


def _logits(feature, conv):
    """``conv(F)`` (N, 1, P) of ``feature`` (N, C, P), a convolution to one channel, and its weights (N or 1, 1, C)."""
    query = up(conv.weight).reshape([1, 1, -1])
    if kernels.on_cpu(feature):
        query = query.expand([feature.shape[0], 1, -1])
    return paddle.matmul(query, feature) + up(conv.bias), query


def _weighted(feature, weights):
    """``sum_p feature * weights`` (N, 1, C) of ``feature`` (N, C, P) and ``weights`` (N, 1, P)."""
    # This way round; the other product of the same numbers takes Paddle eight times as long on the CPU.
    return paddle.matmul(weights, feature, transpose_y=True)


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
            found = paddle.stack(masks(boxes, boxes_valid, frame, size))
            weights = (found * spatial_t.squeeze(1)).flatten(1)
        logits, query = _logits(student.detach(), self.conv_mask_s)
        fixed = query.detach().expand(channel_t.shape), F.softmax(logits.detach())
        sums = _Sums.apply(student, teacher, channel_t, *fixed, self.temp)
        by_position, by_channel, to_logits, to_pooled, gap_sum, weighted, plain = _apart(sums, channels, positions)
        pooled_s = _weighted(student.detach(), F.softmax(logits + to_logits)) + to_pooled
        pooled_t = _weighted(teacher, F.softmax(_logits(teacher, self.conv_mask_t)[0]))
        context_gap = context_vector(pooled_s, self.channel_add_s) - context_vector(pooled_t, self.channel_add_t)
        found = paddle.stack(
            [
                *paddle.matmul(weights, weighted.flatten()).unbind(),
                paddle.dist(F.softmax(by_channel), channel_t, p=1),
                paddle.dist(F.softmax(by_position), spatial_t, p=1),
                plain.sum(),
                # The rest of the square written out, so that the context vectors need not be spread over a map.
                (context_gap * (gap_sum + context_gap)).sum(),
            ]
        )
        fg, bg, attention, relation = (weight / batch for weight in self.weights.values())
        fg, bg = fg * positions * channels, bg * positions * channels  # of the two softmaxes of the teacher
        factors = fg, bg, attention * channels, attention * positions, relation
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
