"""Class scores of a whole map against the teacher's, by the quality focal loss, and what to divide such a sum by.

Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388), eq. 5, with the teacher's scores for targets.
"""

import paddle
import paddle.nn.functional as F

from .common import check_levels, frozen, full_precision, up

PER = ("object", "cell", "image")


def quality_focal(logits, target, beta=2.0, scores=None):
    """``|sigma(x) - t|^beta * BCE(sigma(x), t)`` of each element of logits and of targets from 0 to 1 (eq. 5); `scores`
    are the sigmoids if they are known."""
    gap = (F.sigmoid(logits) if scores is None else scores) - target
    # Paddle's power is eighty times as slow as a square on the CPU.
    factor = gap.square() if beta == 2 else gap.abs() ** beta
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * factor


def sigmoid_focal(logits, target, gamma=2.0, alpha=0.25):
    """``a_t * |sigma(x) - t|^gamma * BCE(sigma(x), t)`` of each element of logits and of targets 0 or 1, with
    ``a_t = alpha t + (1 - alpha) (1 - t)`` (Lin et al., ICCV 2017, arXiv 1708.02002, eq. 5)."""
    return quality_focal(logits, target, gamma) * (target * alpha + (1 - target) * (1 - alpha))


def soft_quality_focal(student, teacher, beta=2.0):
    """The sum of :func:`quality_focal` over all elements of two tensors of logits."""
    return quality_focal(student, F.sigmoid(teacher), beta).sum()


def map_divisor(teacher, per):
    """What a sum over all cells of all levels is divided by.

    Each choice counts twice as much in a batch of two copies of an image.

    Args:
        teacher: list of the teacher's class logits (N, C, H, W), one entry a level.
        per: ``object`` is the sum over the cells of the teacher's highest score there, at least 1 an image: about the
            number of cells in which the teacher sees an object, as detectors divide by their positives; ``cell`` is
            the number of cells of all levels and images; ``image`` is N.

    Returns:
        A scalar without gradient, or a python int.
    """
    images = teacher[0].shape[0]
    if per == "image":
        return images
    if per == "cell":
        return images * sum(x.shape[2] * x.shape[3] for x in teacher)
    return sum(F.sigmoid(frozen(x).max(axis=1)).sum() for x in teacher).clip(min=float(images))


@full_precision
def map_focal(name, student, teacher, beta, per):
    """:func:`soft_quality_focal` of all levels of a head together, over :func:`map_divisor`.

    Args:
        name: of the loss, for the error.
        student, teacher: lists of class logits (N, C, H, W), one entry a level; no gradient reaches the teacher.
        beta: the exponent of the difference.
        per: see :func:`map_divisor`.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes.
    """
    check_levels(name, student, teacher)
    # Level by level: a concatenation would copy the largest maps of a step.
    total = paddle.add_n([soft_quality_focal(up(s), frozen(t), beta) for s, t in zip(student, teacher)])
    return total / map_divisor(teacher, per)
