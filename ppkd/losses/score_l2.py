"""Squared differences of features where the teacher sees an object (``score_l2``).

What Ultralytics documents of its distillation (its guide "Knowledge Distillation", 2026): the features behind a small
projector, per position the squared difference weighted by the teacher's highest class score there, divided by the sum
of the weights and the channels. Made from that description; where it says no more, the choices stand below.
"""

import paddle.nn.functional as F
from paddle import nn

from .common import check_same_shape, frozen, full_precision, up

# Below any weight that counts: a map without any score gives 0.
_EPS = 1e-6


@full_precision
def score_l2(student, teacher, logits):
    """``sum_p w_p * sum_c (s - t)^2 / (C * sum_p w_p)``, p over the positions of all images.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.
        logits: (N, A * K, H, W), the teacher's class logits; w is the sigmoid of the highest at a position.

    Returns:
        A scalar, a mean of squares, whatever the number of channels, cells and images.

    Raises:
        ValueError: unequal shapes, or logits of another size.
    """
    check_same_shape("score_l2", student, teacher)
    cells, places = list(teacher.shape[2:]), list(logits.shape[2:])
    if places != cells:
        raise ValueError(f"score_l2: class logits are of {places} cells, the features of {cells}")
    weights = F.sigmoid(frozen(logits).max(axis=1))
    squares = (up(student) - frozen(teacher)).square().sum(axis=1)
    return (weights * squares).sum() / (weights.sum().clip(min=_EPS) * student.shape[1])


class ScoreL2Loss(nn.Layer):
    """:func:`score_l2` of one level, the student's features behind 1x1 convolution, ReLU, 1x1 convolution.

    Each level is divided by the sum of its own weights. The projector has the teacher's channels inside; it is trained
    with the student, and there also where the channels agree. The student's own logits are not looked at.

    .. code-block:: yaml

        student: ["neck[*]", "head.cls[*]"]
        teacher: ["neck[*]", "head.cls[*]"]
        loss: {name: score_l2}

    Args:
        channels: C of the teacher's features.
        student_channels: of the student's.
    """

    # The two sides' sources may differ in channels.
    projects = True
    compares = ("features", "class logits")

    def __init__(self, channels, student_channels):
        super().__init__()
        self.inner, self.outer = nn.Conv2D(student_channels, channels, 1), nn.Conv2D(channels, channels, 1)

    @full_precision
    def forward(self, student, teacher):
        """The scalar, of pairs ``(features (N, C, H, W), class logits (N, A * K, H, W))``.

        Raises:
            ValueError: as :func:`score_l2`.
        """
        (features, _), (wanted, logits) = student, teacher
        hidden = F.relu(_convolved(up(features), self.inner))
        return score_l2(_convolved(hidden, self.outer), wanted, logits)


def _convolved(x, conv):
    return F.conv2d(x, up(conv.weight), up(conv.bias))
