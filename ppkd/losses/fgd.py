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
  :func:`fgd_context.context_vector`, the same at all positions of an image (a GC block, arXiv 1904.11492).

All four are sums divided by the batch size only; hence the tiny weights.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up
from .fgd_context import channel_add, context_vector, conv_mask, logits
from .fgd_kernels import Sums, apart, means, summed_over_places
from .fgd_levels import small_groups, sums_at_once
from .fgd_parts import LevelSums, parts_of
from .kernels import numbers, sums_both_ways
from .masks import masks_of_levels


def attention_maps(feature, temp):
    """A(F) of shape (N, P) and B(F) of shape (N, C) of ``feature`` (N, C, P); see the module."""
    with paddle.no_grad():
        spatial, channel = _shares(feature, temp)
        return feature.shape[2] * spatial.squeeze(1), feature.shape[1] * channel.squeeze(1)


def _shares(feature, temp):
    """A(F) (N, 1, P) and B(F) (N, 1, C) over their numbers of positions and channels: the softmaxes alone."""
    return [F.softmax(x) for x in sums_both_ways(paddle.abs, feature, means(feature, temp))]


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
        self.conv_mask_s, self.conv_mask_t = conv_mask(channels), conv_mask(channels)
        self.channel_add_s = channel_add(channels, zero_context)
        self.channel_add_t = channel_add(channels, zero_context)

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
        (parts,) = self.together([self], [student], [teacher], boxes, boxes_valid, image_size, padded_size)
        return parts

    @staticmethod
    @full_precision
    def together(losses, students, teachers, boxes, boxes_valid, image_size, padded_size):
        """What `forward` gives for each of several levels, in fewer operations for a device that wants few.

        Args:
            losses: list of losses of the same options.
            students, teachers: lists of (N, C, H, W).
            boxes, boxes_valid, image_size, padded_size: as for `forward`.
        """
        for sides in zip(students, teachers):
            check_same_shape("fgd", *sides)
        frame = image_size if losses[0].box_frame == "image" else numbers(padded_size, students[0]).unsqueeze(0)
        found = masks_of_levels(boxes, boxes_valid, frame, [x.shape[2:] for x in students])
        groups, columns = small_groups(students), (losses, students, teachers, found)
        small = [i for group in groups for i in group]
        large = [i for i in range(len(losses)) if i not in small]
        sums = [sums_at_once(*([column[i] for i in group] for column in columns)) for group in groups]
        sums += [losses[i]._alone(students[i], teachers[i], found[i]) for i in large]
        parts = dict(zip(small + large, parts_of(sums, losses[0].weights, students[0].shape[0])))
        return [parts[i] for i in range(len(losses))]

    def _alone(self, student, teacher, found):
        """The `LevelSums` of one level, by its masks, (N, 2, P)."""
        _, channels, *size = student.shape
        positions = size[0] * size[1]
        student, teacher = up(student).flatten(2), frozen(teacher).flatten(2)
        with paddle.no_grad():
            spatial_t, channel_t = _shares(teacher, self.temp)
            weights = found * spatial_t
        pull, query = logits(student.detach(), self.conv_mask_s)
        fixed = query.detach().expand(channel_t.shape), F.softmax(pull.detach())
        sums = Sums.apply(student, teacher, channel_t, *fixed, self.temp)
        by_position, by_channel, to_logits, to_pooled, gap_sum, weighted, plain = apart(sums, channels, positions)
        pooled_s = summed_over_places(student.detach(), F.softmax(pull + to_logits)) + to_pooled
        pooled_t = summed_over_places(teacher, F.softmax(logits(teacher, self.conv_mask_t)[0]))
        context_gap = context_vector(pooled_s, self.channel_add_s) - context_vector(pooled_t, self.channel_add_t)
        rest = [
            paddle.dist(F.softmax(by_channel), channel_t, p=1),
            paddle.dist(F.softmax(by_position), spatial_t, p=1),
            plain.sum(),
            # The rest of the square written out, so that the context vectors need not be spread over a map.
            (context_gap * (gap_sum + context_gap)).sum(),
        ]
        return LevelSums(paddle.matmul(weighted, weights, transpose_y=True), rest, channels, [positions])
