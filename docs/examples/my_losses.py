"""A loss and a connector of one's own, for ``plugins:`` of a slim file (see docs/terms.md)."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppkd.plugins import register_connector, register_loss


@register_loss("charbonnier_in_boxes")
class CharbonnierInBoxes(nn.Layer):
    """Mean of sqrt((s - t)^2 + eps^2) - eps over the cells whose centre lies in an object's box."""

    def __init__(self, eps=0.001):
        super().__init__()
        self.eps = eps

    def forward(self, student, teacher, boxes, boxes_valid, padded_size):
        inside = cells_in_boxes(student.shape[2:], padded_size, boxes, boxes_valid)
        distance = ((student - teacher).square() + self.eps**2).sqrt() - self.eps
        return (distance.mean(axis=1) * inside).sum() / inside.sum().clip(min=1)


@register_connector("depthwise")
class Depthwise(nn.Layer):
    """A 3x3 depthwise convolution and a 1x1 convolution to the target's channels."""

    def __init__(self, channels, target, activation="relu"):
        super().__init__()
        self.channels = target
        self.spatial = nn.Conv2D(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = nn.Conv2D(channels, target, 1)
        self.activation = getattr(F, activation)

    def forward(self, x):
        return self.pointwise(self.activation(self.spatial(x)))


def cells_in_boxes(cells, size, boxes, valid):
    """(N, H, W): 1 at cells whose centre lies in one of the boxes (N, M, 4), corners in pixels."""
    y, x = ((paddle.arange(count, dtype="float32") + 0.5) * (side / count) for count, side in zip(cells, size))
    left, top, right, bottom = (edge.unsqueeze(2) for edge in boxes.unbind(axis=2))
    in_column = ((x >= left) & (x <= right)).astype("float32") * valid.unsqueeze(2)
    in_row = ((y >= top) & (y <= bottom)).astype("float32")
    return (paddle.bmm(in_row.transpose([0, 2, 1]), in_column) > 0).astype("float32")
