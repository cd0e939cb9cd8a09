"""Focal and Global Distillation (FGD).

Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022 (arXiv
2111.11837). With S the student's map (already of the teacher's shape), T the teacher's, both
(N, C, H, W), and P = H * W positions:

* attention of a map F, for focal distillation: spatial
  ``A(F) = P * softmax_p(mean_c |F| / temp)`` and channel
  ``B(F) = C * softmax_c(mean_p |F| / temp)``;
* ``fg`` and ``bg`` (its feature loss): ``1/N * sum mask * A(T) * B(T) * (S - T)^2`` with the masks
  of :func:`box_masks`;
* ``attention`` (its attention loss): ``1/N * (sum |B(S) - B(T)| + sum |A(S) - A(T)|)``;
* ``relation`` (global distillation): ``1/N * sum (S + c_s - T - c_t)^2``, each c the vector of
  :func:`context_vector`, the same at all positions of an image (a GC block, arXiv 1904.11492).

All four are sums divided by the batch size only; hence the tiny weights.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from .common import at_least_one_box, check_choice, check_same_shape, frozen, full_precision, up
from .kernels import map_of, of_one_shape, reduced, sums_both_ways, sums_over_channels


def box_masks(boxes, boxes_valid, frame, map_size):
    """Where the boxes of each image lie on a feature map.

    A box covers the cells ``floor(x1)..ceil(x2)`` by ``floor(y1)..ceil(y2)``, both ends included,
    of its corners scaled from ``frame`` to the map, and weighs ``1 / number of cells`` there,
    counted before clipping to the map. Where boxes overlap the largest weight (of the smallest
    box) stands. The background is every other cell, with the weight ``1 / number of them``.

    Args:
        boxes: (N, M, 4) ``x1 y1 x2 y2`` in pixels; M may be 0.
        boxes_valid: (N, M), true (or 1) where a row of ``boxes`` is a box and not padding.
        frame: (N, 2) or (1, 2), the height and width in pixels that the map stands for.
        map_size: ``(H, W)`` of the map.

    Returns:
        Foreground and background, both (N, H, W) float32.
    """
    height, width = map_size
    boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
    frame = frame.astype("float32")
    x1, y1, x2, y2 = boxes.unbind(axis=-1)
    # Division first: in float32 the other order can push a corner over a cell border.
    x_lo, x_hi = (x1 / frame[:, 1:] * width).floor(), (x2 / frame[:, 1:] * width).ceil()
    y_lo, y_hi = (y1 / frame[:, :1] * height).floor(), (y2 / frame[:, :1] * height).ceil()
    cells = (x_hi + 1 - x_lo) * (y_hi + 1 - y_lo)
    weight = boxes_valid / cells.clip(min=1.0)
    rows = _inside(y_lo, y_hi, height) * weight.unsqueeze(-1)
    columns = _inside(x_lo, x_hi, width)
    foreground = _largest(rows, columns)
    empty = (foreground == 0).astype("float32")
    return foreground, empty / empty.sum(axis=[1, 2], keepdim=True).clip(min=1.0)


def _largest(rows, columns):
    """(N, H, W): the largest of the outer products of ``rows`` (N, M, H) and ``columns`` (N, M, W)."""

    def largest(_, rows, columns):
        row, column = of_one_shape(rows.unsqueeze(3), columns.unsqueeze(2))
        return (row * column).max(axis=1)

    (batch, number, height), width = rows.shape, columns.shape[2]
    return reduced(largest, paddle.maximum, rows, columns, shape=[batch, number, height * width])


def _inside(low, high, length):
    """(N, M, length): 1 where a cell index is in ``low..high``, else 0."""
    index = paddle.arange(length, dtype="float32")
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    return ((index >= low) & (index <= high)).astype("float32")


def attention_maps(feature, temp):
    """A(F) of shape (N, P) and B(F) of shape (N, C) of ``feature`` (N, C, P); see the module."""
    with paddle.no_grad():
        return _attention(*_sizes(feature), temp)


def _sizes(feature):
    """Mean of ``|feature|`` (N, C, P) over the channels (N, P) and over the positions (N, C)."""
    by_position, by_channel = sums_both_ways(paddle.abs, feature)
    return by_position / feature.shape[1], by_channel / feature.shape[2]


def _attention(by_position, by_channel, temp):
    positions, channels = by_position.shape[1], by_channel.shape[1]
    return positions * F.softmax(by_position / temp), channels * F.softmax(by_channel / temp)


class _Sums(PyLayer):
    """The few sums over the student's map that all terms are made of, with the gradient of the map in one go.

    With S and T (N, C, P), d = S - T and a = softmax_p(q S + b), q (C,) and b (1,):

        mean_c |S| (N, P), mean_p |S| (N, C), S a (N, C), sum_p d (N, C), sum_c B d^2 (N, P), sum_cp d^2 (N, 1)

    Left to autograd each would make maps of its own and a gradient of its own. Here nothing but S and T is kept, and
    the gradient is ``d * (2 B x g4 + 2 g5) + sign(S) * (g0 / C + g1 / P) + g2 x a + q x gl + g3``, g being the
    gradients of the six and gl that of ``q S``: outer products of vectors, made piece by piece.

    All are one tensor (N, ..), and S alone gets a gradient: with more outputs or inputs ``paddle.grad`` of some inputs,
    or of one term after the other, raises, crashes or is wrong.
    """

    @staticmethod
    def forward(ctx, student, teacher, channel_t, query, bias):
        spread = _spread(student, query, bias)
        ones = paddle.ones_like(spread)
        gap_sum = _weighted(student, ones) - _weighted(teacher, ones)
        # One product for both: of the squared error weighted by B(T), and as it is.
        weights = paddle.stack([channel_t, paddle.ones_like(channel_t)], axis=1)
        squares = sums_over_channels(_squared_gap, [student, teacher], weights)
        weighted, plain = squares.unbind(axis=1)
        ctx.save_for_backward(student, teacher, channel_t, query, spread)
        sums = [*_sizes(student), _weighted(student, spread), gap_sum, weighted, plain.sum(axis=1, keepdim=True)]
        return paddle.concat(sums, axis=1)

    @staticmethod
    @full_precision
    def backward(ctx, gradient):
        student, teacher, channel_t, query, spread = ctx.saved_tensor()
        _, channels, positions = student.shape
        g_position, g_channel, g_pooled, g_gap, g_weighted, g_plain = _apart(gradient, channels, positions)
        g_spread = paddle.matmul(g_pooled.unsqueeze(1), student).squeeze(1)
        g_logits = spread * (g_spread - (spread * g_spread).sum(axis=1, keepdim=True))
        one = paddle.ones_like(spread)
        of_gap = paddle.stack([2 * g_weighted, one], axis=1)
        by_gap = paddle.stack([channel_t, (2 * g_plain).expand(channel_t.shape)], axis=2)
        of_sign = paddle.stack([g_position / channels, one], axis=1)
        by_sign = paddle.stack([paddle.ones_like(g_channel), g_channel / positions], axis=2)
        of_rest = paddle.stack([spread, g_logits, one], axis=1)
        by_rest = paddle.stack([g_pooled, query.expand(g_pooled.shape), g_gap], axis=2)

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


def _pool(feature, conv_mask):
    """``sum_p F * softmax_p(conv_mask(F))`` (N, C) of ``feature`` (N, C, P)."""
    return _weighted(feature, _spread(feature, *_mask_of(conv_mask)))


def _mask_of(conv):
    """Weight (C,) and bias (1,) of a convolution to one channel."""
    return up(conv.weight).flatten(), up(conv.bias)


def _spread(feature, query, bias):
    """``softmax_p(q F + b)`` (N, P) of ``feature`` (N, C, P)."""
    query = query.expand([feature.shape[0], 1, -1])
    return F.softmax(paddle.matmul(query, feature).squeeze(1) + bias)


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
        size, batch = student.shape[2:], student.shape[0]
        student, teacher = up(student).flatten(2), frozen(teacher).flatten(2)
        frame = image_size
        if self.box_frame == "padded":
            frame = paddle.to_tensor([padded_size], dtype="float32")
        with paddle.no_grad():
            foreground, background = (x.flatten(1) for x in box_masks(boxes, boxes_valid, frame, size))
            spatial_t, channel_t = attention_maps(teacher, self.temp)
        mask = [x.detach() for x in _mask_of(self.conv_mask_s)]
        sums = _Sums.apply(student, teacher, channel_t, *mask)
        *sizes, pooled, gap_sum, weighted, plain = _apart(sums, *student.shape[1:])
        # Zero, and the way to the convolution of the mask, whose gradient `_Sums` leaves out.
        through_mask = _pool(student.detach(), self.conv_mask_s)
        pooled = pooled + (through_mask - through_mask.detach())
        context_gap = context_vector(pooled, self.channel_add_s) - context_vector(
            _pool(teacher, self.conv_mask_t), self.channel_add_t
        )
        spatial_s, channel_s = _attention(*sizes, self.temp)
        terms = {
            "fg": (foreground * spatial_t * weighted).sum(),
            "bg": (background * spatial_t * weighted).sum(),
            "attention": (channel_s - channel_t).abs().sum() + (spatial_s - spatial_t).abs().sum(),
            # The square written out, so that the context vectors need not be spread over a map.
            "relation": plain.sum() + (context_gap * (2 * gap_sum + student.shape[2] * context_gap)).sum(),
        }
        return {name: term * (self.weights[name] / batch) for name, term in terms.items()}


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
