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

from .common import (
    at_least_one_box,
    check_choice,
    check_same_shape,
    frozen,
    full_precision,
    over_positions,
    up,
)


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
    foreground = (rows.unsqueeze(-1) * columns.unsqueeze(-2)).max(axis=1)
    empty = (foreground == 0).astype("float32")
    return foreground, empty / empty.sum(axis=[1, 2], keepdim=True).clip(min=1.0)


def _inside(low, high, length):
    """(N, M, length): 1 where a cell index is in ``low..high``, else 0."""
    index = paddle.arange(length, dtype="float32")
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    return ((index >= low) & (index <= high)).astype("float32")


def attention_maps(feature, temp):
    """A(F) of shape (N, P) and B(F) of shape (N, C) of ``feature`` (N, C, P); see the module."""
    batch, channels, positions = feature.shape
    size = feature.abs()
    # A product with a constant vector; why, says over_positions.
    over_channels = paddle.full([batch, 1, channels], 1 / channels, feature.dtype)
    spatial = paddle.bmm(over_channels, size).squeeze(1)
    channel = over_positions(size, 1 / positions).squeeze(2)
    return positions * F.softmax(spatial / temp), channels * F.softmax(channel / temp)


def context_vector(feature, conv_mask, channel_add):
    """The global context of ``feature`` (N, C, P), one vector (N, C) an image.

    ``add(sum_p F * softmax_p(conv_mask(F)))``; both blocks are 1x1 convolutions, here as matrix
    products on their weights, so that nothing of the size of ``feature`` but itself is needed.
    """
    query = up(conv_mask.weight).reshape([1, 1, -1]).expand([feature.shape[0], -1, -1])
    attention = F.softmax(paddle.bmm(query, feature) + up(conv_mask.bias))
    pooled = paddle.bmm(feature, attention.transpose([0, 2, 1])).squeeze(2)
    reduce, norm, _, restore = channel_add
    hidden = _pointwise(pooled, reduce)
    hidden = F.layer_norm(hidden, hidden.shape[1:], up(norm.weight), up(norm.bias), norm._epsilon)
    return _pointwise(F.relu(hidden), restore)


def _pointwise(vectors, conv):
    weight = up(conv.weight).flatten(1)
    return paddle.matmul(vectors, weight, transpose_y=True) + up(conv.bias)


@full_precision
def fgd_terms(student, teacher, foreground, background, context_gap, temp):
    """The four terms of FGD, unweighted; formulas at the top of the module.

    Args:
        student, teacher: (N, C, H, W); no gradient reaches the teacher.
        foreground, background: (N, H, W), from :func:`box_masks`.
        context_gap: (N, C), the student's context vector minus the teacher's.
        temp: the temperature of the attention.

    Returns:
        Scalars ``fg``, ``bg``, ``attention``, ``relation``.

    Raises:
        ValueError: the two maps differ in shape.
    """
    check_same_shape("fgd", student, teacher)
    student, teacher = up(student).flatten(2), frozen(teacher).flatten(2)
    batch, _, positions = student.shape
    with paddle.no_grad():
        spatial_t, channel_t = attention_maps(teacher, temp)
    spatial_s, channel_s = attention_maps(student, temp)

    gap = student - teacher
    # Two sums over channels in one product, of the squared error as it is and weighted by B(T).
    # All terms are made of such small sums: see "relation", which is a square written out so that
    # the context vectors need not be spread over a map.
    over_channels = paddle.stack([channel_t, paddle.ones_like(channel_t)], axis=1)
    weighted, plain = paddle.bmm(over_channels, gap * gap).unbind(axis=1)
    weighted = weighted * spatial_t
    gap_sum = over_positions(gap).squeeze(2)
    relation = plain.sum() + (context_gap * (2 * gap_sum + positions * context_gap)).sum()
    attention = (channel_s - channel_t).abs().sum() + (spatial_s - spatial_t).abs().sum()
    return {
        "fg": (foreground.flatten(1) * weighted).sum() / batch,
        "bg": (background.flatten(1) * weighted).sum() / batch,
        "attention": attention / batch,
        "relation": relation / batch,
    }


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
        student, teacher = up(student), frozen(teacher)
        frame = image_size
        if self.box_frame == "padded":
            frame = paddle.to_tensor([padded_size], dtype="float32")
        with paddle.no_grad():
            masks = box_masks(boxes, boxes_valid, frame, student.shape[2:])
        context_gap = context_vector(
            student.flatten(2), self.conv_mask_s, self.channel_add_s
        ) - context_vector(teacher.flatten(2), self.conv_mask_t, self.channel_add_t)
        terms = fgd_terms(student, teacher, *masks, context_gap, self.temp)
        return {name: term * self.weights[name] for name, term in terms.items()}


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
