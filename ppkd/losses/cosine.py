"""The angle between two maps, position by position.

What RT-DETRv4 compares a vision transformer's tokens by, behind one linear layer (Liao et al., "RT-DETRv4: Painlessly
Furthering Real-Time Object Detection with Vision Foundation Models", 2025, arXiv 2510.25257).
"""

from paddle import nn

from .common import check_same_shape, frozen, full_precision, safe_sqrt, up

_EPS = 1e-8


@full_precision
def cosine(student, teacher):
    """``mean over images and positions of 1 - s * t / (|s| |t|)``.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.

    Returns:
        A scalar from 0 to 2. A position where either side is zero gives 1, and no gradient.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("cosine", student, teacher)
    student, teacher = up(student), frozen(teacher)
    lengths = safe_sqrt(student.square().sum(axis=1)) * safe_sqrt(teacher.square().sum(axis=1))
    return 1 - ((student * teacher).sum(axis=1) / lengths.clip(min=_EPS)).mean()


class CosineLoss(nn.Layer):
    """:func:`cosine`; weighting is the term's business.

    .. code-block:: yaml

        student_connector: linear
        loss: cosine
    """

    def forward(self, student, teacher):
        return cosine(student, teacher)
