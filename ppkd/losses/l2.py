"""Plain distances of two tensors ("mimicking").

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015 (arXiv 1412.6550): the loss
of a hint; the normalised forms are those of MMRazor's ``L2Loss``.
"""

from paddle import nn

from .common import check_choice, check_same_shape, frozen, full_precision, safe_sqrt, up

NORMS = ("mse", "l1")


@full_precision
def l2(student, teacher, normalize=True, mult=1.0, div_element=False, dist=False):
    """Sum of squared differences of two tensors, in MMRazor's forms.

    Args:
        student, teacher: (N, ...), of equal shape; no gradient reaches the teacher.
        normalize: first divide each sample by its Euclidean norm and multiply it by ``mult``. A
            sample of zeros stays zero.
        mult: see ``normalize``; has no effect without it.
        div_element: divide the sum by the number of elements, not by N.
        dist: the square root of the undivided sum instead; grows with the batch.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("l2", student, teacher)
    student, teacher = up(student), frozen(teacher)
    if normalize:
        student, teacher = _to_norm(student, mult), _to_norm(teacher, mult)
    total = (student - teacher).square().sum()
    if dist:
        return safe_sqrt(total)
    return total / (student.size if div_element else student.shape[0])


def _to_norm(x, norm):
    flat = x.flatten(1)
    length = safe_sqrt(flat.square().sum(axis=1, keepdim=True))
    return flat * (norm / (length + (length == 0).astype(length.dtype)))


@full_precision
def mimic(student, teacher, norm="mse"):
    """Mean of the squared (``mse``) or absolute (``l1``) differences of all elements.

    Args:
        student, teacher: of equal shape; no gradient reaches the teacher.
        norm: ``mse`` or ``l1``.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes, or an unknown norm.
    """
    check_same_shape("mimic", student, teacher)
    check_choice("mimic", "norm", norm, NORMS)
    gap = up(student) - frozen(teacher)
    return (gap.abs() if norm == "l1" else gap.square()).mean()


class L2Loss(nn.Layer):
    """:func:`l2` with its options; weighting is the term's business.

    .. code-block:: yaml

        loss: {name: l2, normalize: true, div_element: true}
    """

    takes_tokens = True

    def __init__(self, normalize=True, mult=1.0, div_element=False, dist=False):
        super().__init__()
        self.normalize = normalize
        self.mult = mult
        self.div_element = div_element
        self.dist = dist

    def forward(self, student, teacher):
        return l2(student, teacher, self.normalize, self.mult, self.div_element, self.dist)


class MimicLoss(nn.Layer):
    """:func:`mimic` with its option; weighting is the term's business.

    .. code-block:: yaml

        loss: {name: mimic, norm: mse}

    Raises:
        ValueError: an unknown norm.
    """

    takes_tokens = True

    def __init__(self, norm="mse"):
        super().__init__()
        check_choice("mimic", "norm", norm, NORMS)
        self.norm = norm

    def forward(self, student, teacher):
        return mimic(student, teacher, self.norm)
