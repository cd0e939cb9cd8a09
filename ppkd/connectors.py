"""Connectors make a student's tensor comparable to a teacher's. Their parameters are trained with the student."""

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


class Standardise(nn.Layer):
    """Batch norm without affine parameters and without running statistics (RTMDet's distillation, MMYOLO)."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return batch_standardise(x)


class AlignStandardise(nn.Layer):
    """`Align`, then `Standardise`."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = target
        self.align = Align(channels, target)

    def forward(self, x):
        return batch_standardise(self.align(x))


class Normalise(nn.Layer):
    """Zero mean and unit (unbiased) standard deviation per channel over the batch: PaddleDetection's ``normalize``."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return pkd_standardise(up(x), unbiased=True)


class AlignNormalise(nn.Layer):
    """`Align`, then `Normalise`."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = target
        self.align = Align(channels, target)

    def forward(self, x):
        return pkd_standardise(up(self.align(x)), unbiased=True)


CONNECTORS = {
    "none": Identity,
    "align": Align,
    "standardise": Standardise,
    "align_standardise": AlignStandardise,
    "normalise": Normalise,
    "align_normalise": AlignNormalise,
}


def match_size(student, teacher):
    """Resize the teacher's map to the student's height and width (bilinear, half-pixel centres) where they differ."""
    if student.shape[2:] == teacher.shape[2:]:
        return teacher
    return F.interpolate(teacher, size=student.shape[2:], mode="bilinear", align_corners=False)
