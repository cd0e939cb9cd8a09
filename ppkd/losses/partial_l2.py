"""Matching Guided Distillation: channels of a wide teacher matched with those of a narrow student.

Yue et al., "Matching Guided Distillation", ECCV 2020 (arXiv 2008.09958). (Not "Masked Generative Distillation", which
has the same initials.) Margins and partial distance are Heo et al.'s, "A Comprehensive Overhaul of Feature
Distillation", ICCV 2019 (arXiv 1904.01866, sections 3.1 and 3.3). How channels are
assigned: :mod:`ppkd.engine.channel_matching`.
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, up

REDUCERS = ("amp", "sp", "rd", "sm")
# Below this share of negative values their mean is not computed but set to three deviations below zero.
_RARE = 1e-3


def negative_margins(scale, shift):
    """What a channel's negative values are on the average, if a batch norm made it normal.

    Args:
        scale, shift: (C,) weight and bias of the batch norm: the deviation (its sign does not matter) and the mean.

    Returns:
        (C,) float32: ``m - s * phi(m / s) / Phi(-m / s)``, or ``-3 s`` where no more than 0.001 of the values are
        negative.
    """
    shift, scale = shift.astype("float64"), scale.abs().astype("float64").clip(min=1e-30)
    ratio = shift / scale
    negative = 0.5 * (1 - paddle.erf(ratio / math.sqrt(2)))
    density = (-0.5 * ratio * ratio).exp() / math.sqrt(2 * math.pi)
    mean = shift - scale * density / negative.clip(min=_RARE)
    return paddle.where(negative > _RARE, mean, -3 * scale).astype("float32")


@full_precision
def channel_distances(student, teacher):
    """How far each channel of the student is from each of the teacher's, summed over the images.

    Args:
        student: (N, S, H, W).
        teacher: (N, T, H, W).

    Returns:
        (S, T): the sum over images of ``2 - 2 <s_i, t_j>`` between channel maps of length 1 (a dead one stays 0).
    """
    sides = [_unit_maps(x) for x in (student, teacher)]
    return (2 - 2 * paddle.bmm(sides[0], sides[1].transpose([0, 2, 1]))).sum(axis=0)


def _unit_maps(x):
    x = frozen(x).flatten(2)
    return x / (x * x).sum(axis=2, keepdim=True).sqrt().clip(min=1e-12)


def draw_members(groups, shape):
    """A member, 0 to ``groups - 1``, for every value of ``shape``: what random drop keeps."""
    return paddle.randint(0, groups, shape)


def reduce_maps(teacher, assignment, reducer="amp", members=None):
    """Make one channel of each group of the teacher's.

    Args:
        teacher: (N, T, H, W).
        assignment: (G, S) int64, the group of student channel i being the teacher's channels ``assignment[:, i]``.
        reducer: ``amp`` takes at every position the value of largest magnitude, with its sign; ``sp`` the largest;
            ``rd`` that of a member drawn for every image, channel and position; ``sm`` has groups of one.
        members: (N, S, H, W) of :func:`draw_members` for ``rd``, drawn if not given.

    Returns:
        (N, S, H, W).
    """
    groups = [paddle.index_select(teacher, each, axis=1) for each in assignment.unbind()]
    if reducer == "rd" and members is None:
        members = draw_members(len(groups), groups[0].shape)
    chosen = groups[0]
    for number, values in enumerate(groups[1:], 1):
        if reducer == "amp":
            chosen = paddle.where(values.abs() > chosen.abs(), values, chosen)
        elif reducer == "sp":
            chosen = paddle.maximum(chosen, values)
        else:
            chosen = paddle.where(members == number, values, chosen)
    return chosen


def reduce_margins(margins, assignment, reducer="amp", members=None):
    """The margins (T,) of the teacher's channels as (1, S, 1, 1) of :func:`reduce_maps`.

    The mean of a group for ``amp``, the largest for ``sp``, that of one drawn member for ``rd``: `members` (S,).
    """
    groups = paddle.stack([paddle.gather(margins, each) for each in assignment.unbind()])
    if reducer == "amp":
        reduced = groups.mean(axis=0)
    elif reducer == "rd":
        members = draw_members(*groups.shape[:1], groups.shape[1:]) if members is None else members
        reduced = paddle.take_along_axis(groups, members.unsqueeze(0), axis=0)[0]
    else:
        reduced = groups.max(axis=0)
    return reduced.reshape([1, -1, 1, 1])


@full_precision
def partial_l2(student, teacher):
    """``1/N * sum (s - t)^2`` over the values with ``s > t`` or ``t > 0``.

    Where the teacher is below zero, which its ReLU cuts off, the student only has to be as low or lower.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.

    Returns:
        A scalar: the sum over everything divided by the batch only, hence the tiny weights.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("partial_l2", student, teacher)
    target = frozen(teacher)
    gap = up(student) - target
    gap = paddle.where(target > 0, gap, F.relu(gap))
    return (gap * gap).sum() / gap.shape[0]


class PartialL2Loss(nn.Layer):
    """:func:`partial_l2` of one pair of maps before their ReLU, times a factor for their stride.

    .. code-block:: yaml

        student: backbone.pre_relu[*]
        student_connector: norm
        teacher_connector: match
        loss: {name: partial_l2, factors: {4: 2.0e-8, 8: 2.0e-8, 16: 2.0e-7, 32: 2.0e-7}}

    Args:
        factors: stride -> factor; 1 where it does not name a stride, or is not given.

    Raises:
        ValueError: ``factors`` is no mapping of strides to numbers.
    """

    def __init__(self, factors=None):
        super().__init__()
        self.factors = factors or {}
        pairs = self.factors.items() if isinstance(self.factors, dict) else [(None, None)]
        if not all(_number(stride) and _number(factor) for stride, factor in pairs):
            raise ValueError(f"partial_l2: factors is {factors!r}, expected a mapping from strides to numbers")

    def forward(self, student, teacher, strides=()):
        """The scalar; ``strides`` are those of the maps, one here."""
        return partial_l2(student, teacher) * self.factors.get(strides[0] if strides else None, 1.0)


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def check_reducer(reducer):
    """Raise ``ValueError`` unless ``reducer`` is one of ``REDUCERS``."""
    check_choice("match", "reducer", reducer, REDUCERS)
