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

from .common import check_choice, check_same_shape, frozen, full_precision, up
from .fgd_kernels import Sums, apart, means, summed_over_places
from .kernels import for_each_image, layer_norm, numbers, sums_both_ways
from .masks import masks


def attention_maps(feature, temp):
    """A(F) of shape (N, P) and B(F) of shape (N, C) of ``feature`` (N, C, P); see the module."""
    with paddle.no_grad():
        spatial, channel = _shares(feature, temp)
        return feature.shape[2] * spatial.squeeze(1), feature.shape[1] * channel.squeeze(1)


def _shares(feature, temp):
    """A(F) (N, 1, P) and B(F) (N, 1, C) over their numbers of positions and channels: the softmaxes alone."""
    return [F.softmax(x) for x in sums_both_ways(paddle.abs, feature, means(feature, temp))]


def context_vector(pooled, channel_add):
    """The global context of a map, one vector (N, 1, C) an image, of its pooled values (N, 1, C).

    ``add(sum_p F * softmax_p(conv_mask(F)))``, the inner sum being ``pooled``. All are 1x1 convolutions, here as matrix
    products on their weights, so that nothing of the size of F but itself is needed.
    """
    reduce, norm, _, restore = channel_add
    hidden, scale, shift = _pointwise(pooled, reduce), up(norm.weight), up(norm.bias)
    return _pointwise(F.relu(layer_norm(hidden, scale, shift, norm._epsilon)), restore)


def _logits(feature, conv):
    """``conv(F)`` (N, 1, P) of ``feature`` (N, C, P), a convolution to one channel, and its weights (N or 1, 1, C)."""
    query = for_each_image(up(conv.weight).reshape([1, 1, -1]), feature)
    return paddle.matmul(query, feature) + up(conv.bias), query


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
        """The four parts, weighted.

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
        sums = Sums.apply(student, teacher, channel_t, *fixed, self.temp)
        by_position, by_channel, to_logits, to_pooled, gap_sum, weighted, plain = apart(sums, channels, positions)
        pooled_s = summed_over_places(student.detach(), F.softmax(logits + to_logits)) + to_pooled
        pooled_t = summed_over_places(teacher, F.softmax(_logits(teacher, self.conv_mask_t)[0]))
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
