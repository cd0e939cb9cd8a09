"""Connectors make a student's tensor comparable to a teacher's. Their parameters are trained with the student."""

from functools import partial

import paddle.nn.functional as F
from paddle import nn

from ppkd.losses.common import up
from ppkd.losses.normalise import batch_standardise
from ppkd.losses.pkd import pkd_standardise


class Identity(nn.Layer):
    """Passes the map on; it only knows how many channels come out."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return x


class Align(nn.Layer):
    """1x1 convolution with bias to the target's channels; nothing at all where the numbers agree.

    The adapter of FGD, MGD and most feature distillers (FitNets, arXiv 1412.6550).

    Args:
        channels: channels that come in.
        target: channels that go out.
    """

    def __init__(self, channels, target):
        super().__init__()
        self.channels = target
        self.conv = nn.Conv2D(channels, target, 1) if channels != target else None

    def forward(self, x):
        return x if self.conv is None else self.conv(x)


class Normed(nn.Layer):
    """A normalisation without parameters and without running statistics, after an `Align` or alone.

    Args:
        channels: channels that come in.
        target: channels that go out, if `align`.
        norm: function from a map to a map.
        align: whether unequal channels are connected first.
    """

    def __init__(self, channels, target, norm, align=False):
        super().__init__()
        self.channels = target if align else channels
        self.align = Align(channels, target) if align else None
        self._norm = norm

    def forward(self, x):
        return self._norm(x if self.align is None else self.align(x))


def _normalise(x):
    return pkd_standardise(up(x), unbiased=True)


# standardise: batch norm without affine parameters (RTMDet's distillation, MMYOLO); normalise: PaddleDetection's, by
# the unbiased standard deviation.
CONNECTORS = {
    "none": Identity,
    "align": Align,
    "standardise": partial(Normed, norm=batch_standardise),
    "align_standardise": partial(Normed, norm=batch_standardise, align=True),
    "normalise": partial(Normed, norm=_normalise),
    "align_normalise": partial(Normed, norm=_normalise, align=True),
}


def match_size(student, teacher):
    """Resize the teacher's map to the student's height and width where they differ.

    Bilinear (half-pixel centres), but by the mean over a cell's area where the teacher's map is larger in both
    directions: bilinear would look at four of the cells and leave out the others.
    """
    size = student.shape[2:]
    if size == teacher.shape[2:]:
        return teacher
    if all(theirs >= ours for ours, theirs in zip(size, teacher.shape[2:])):
        return F.adaptive_avg_pool2d(teacher, size)
    return F.interpolate(teacher, size=size, mode="bilinear", align_corners=False)
