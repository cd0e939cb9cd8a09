"""FGD of small maps, several levels as one, for a device that wants few operations.

Of a small map such a device computes anything in the time that it takes to launch it. So here are the formulas of
:mod:`fgd` as they stand, differentiated by Paddle, with maps as temporaries; and levels of equal channels stand side by
side in one map (N, C, A), of which each of the K levels has a row (N, K, ...) of whatever is one of a level. What is
not finite in one of them is then not finite in any.
"""

import functools

import paddle
import paddle.nn.functional as F

from . import kernels
from .common import frozen, up
from .fgd_context import context_vectors
from .fgd_parts import LevelSums
from .kernels import constant

# Values of the maps that are taken as one: 8 MB, which a GPU reads in about the time that a launch takes.
_MOST = 2**21


def small_groups(maps):
    """Which of some maps (N, C, H, W) are taken as one.

    Returns:
        List of lists of indices: maps of the same channels, from the smallest on as many as are small together. What is
        in none of them is too large for that, as everything is on the CPU.
    """
    if kernels.on_cpu(maps[0]):
        return []
    groups, sizes = {}, {}
    for i, x in sorted(enumerate(maps), key=lambda pair: pair[1].size):
        channels = x.shape[1]
        sizes[channels] = sizes.get(channels, 0) + x.size
        if sizes[channels] <= _MOST:
            groups.setdefault(channels, []).append(i)
    return list(groups.values())


def sums_at_once(losses, students, teachers, found):
    """What levels of equal channels come to, a `LevelSums`.

    Args:
        losses: the :class:`fgd.FGDLoss` of each level, of the same options.
        students, teachers: lists of (N, C, H, W).
        found: list of their masks, as :func:`masks.masks_of_levels` gives them.
    """
    students, teachers = [up(x) for x in students], [frozen(x) for x in teachers]
    levels = _Levels([x.shape[2] * x.shape[3] for x in students], losses[0].temp, students[0])
    student, teacher = levels.as_one(students), levels.as_one(teachers)
    with paddle.no_grad():
        by_position_t, by_channel_t = levels.attention(teacher)
        weights = found[0] * by_position_t if levels.alone else paddle.concat(found, axis=2)
    by_position, by_channel = levels.attention(student)
    gap = student - teacher
    weighted = paddle.matmul(by_channel_t, gap.square())
    if not levels.alone:
        weighted = weighted * by_position_t
    masked = paddle.matmul(weighted, weights, transpose_y=True)
    pooled = levels.pooled(student, [x.conv_mask_s for x in losses])
    pooled = [pooled, levels.pooled(teacher, [x.conv_mask_t for x in losses])]
    blocks = [x.channel_add_s for x in losses], [x.channel_add_t for x in losses]
    if levels.alone:
        ours, theirs = (context_vectors(*side) for side in zip(pooled, blocks))
    else:
        ours, theirs = context_vectors(paddle.concat(pooled, axis=1), [*blocks[0], *blocks[1]]).split(2, axis=1)
    moved = gap + paddle.matmul(ours - theirs, levels.members, transpose_x=True)
    rest = [
        levels.distance(by_channel, by_channel_t),
        levels.distance(by_position, by_position_t),
        levels.total(moved.square()),
    ]
    batch, channels, _ = student.shape
    return LevelSums(masked if levels.alone else masked.reshape([batch, 1, -1]), rest, channels, levels.counts)


class _Levels:
    """Levels of ``counts`` positions side by side; where there is but one, in fewer operations.

    Attributes:
        members: (K, A), 1 where a position is of a level.
    """

    def __init__(self, counts, temp, like):
        self.counts, self.alone, self._temp = counts, len(counts) == 1, temp
        self.members, self._away, self._means = _rows(tuple(counts), temp, like.dtype, str(like.place))

    def as_one(self, maps):
        """(N, C, A) of maps (N, C, H, W)."""
        maps = [x.flatten(2) for x in maps]
        return maps[0] if self.alone else paddle.concat(maps, axis=2)

    def attention(self, feature):
        """Spatial (N, K, A) and channel (N, K, C) attention, the softmaxes alone."""
        size, channels = feature.abs(), feature.shape[1]
        by_position = paddle.matmul(constant([1, channels], size, 1 / (channels * self._temp)), size)
        return self._softmax(by_position), F.softmax(paddle.matmul(self._means, size, transpose_y=True))

    def pooled(self, feature, convs):
        """``sum_p F * softmax_p(conv_mask(F))`` (N, K, C), by the ``conv_mask`` of each level."""
        weights = [up(conv.weight) for conv in convs]
        weight = weights[0] if self.alone else paddle.concat(weights, axis=1)
        logits = paddle.matmul(weight, feature, transpose_x=True)
        return paddle.matmul(self._softmax(logits), feature, transpose_y=True)

    def distance(self, x, y):
        """The sum of absolute differences of each row of (N, K, ...)."""
        return paddle.dist(x, y, p=1) if self.alone else (x - y).abs().sum(axis=[0, 2])

    def total(self, x):
        """The sum of each level's values in ``x`` (N, C, A)."""
        return x.sum() if self.alone else paddle.matmul(self.members, x.sum(axis=[0, 1]))

    def _softmax(self, x):
        """``x`` (N, 1 or K, A) as K rows, each of which adds up to 1 over its level and is 0 elsewhere."""
        return F.softmax(x if self.alone else x + self._away)


@functools.lru_cache(maxsize=64)
def _rows(counts, temp, dtype, place):
    """`_Levels.members`, what takes a row out of other levels, and what makes means over ``temp``; all (K, A)."""
    eye = paddle.eye(len(counts), dtype=dtype)
    members = paddle.concat([eye[:, i : i + 1].expand([-1, n]) for i, n in enumerate(counts)], axis=1)
    return members, (members - 1) * 1e30, members / (members.sum(axis=1, keepdim=True) * temp)
