"""Distillation by Pearson correlation (PKD).

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022 (arXiv 2207.02039): the mean squared error of standardised maps.
"""

from paddle import nn
from paddle.autograd import PyLayer

from .common import check_same_shape, frozen, full_precision, up
from .kernels import channel_sums, difference_, map_of, product_, square_, times_
from .normalise import Statistics, centred, standardised


@full_precision
def pkd(student, teacher, unbiased=False):
    """``mean((s - t)^2) / 2`` of the standardised maps: one minus their correlation.

    Args:
        student, teacher: (N, C, H, W), of equal shape; no gradient reaches the teacher.
        unbiased: divide the variance by n - 1 instead of n. The authors' code does; then a batch
            of two copies of an image differs a little from one of the image alone.

    Returns:
        A scalar.

    Raises:
        ValueError: unequal shapes.
    """
    check_same_shape("pkd", student, teacher)
    return _HalfSquares.apply(up(student), frozen(teacher), unbiased)


class _HalfSquares(PyLayer):
    """``mean((s - t)^2) / 2`` of the standardised maps, and its gradient, without a map beside the gradient's own.

    With k the student's factor ``1 / (deviation + eps)``, c its centred map and d = s - t, the gradient is
    ``(k d - c k^2 sum(d c) / (deviation * count)) / size``.
    """

    @staticmethod
    def forward(ctx, student, teacher, unbiased):
        maps = [x.flatten(2) for x in (student, teacher)]
        ours, theirs = (Statistics(x, unbiased) for x in maps)
        values = [*ours.middle, ours.scale, *theirs.middle, theirs.scale]
        squares, products = channel_sums(_gap_products, maps, values)
        ctx.maps, ctx.values, ctx.slope, ctx.shape = maps, values, products * ours.slope, student.shape
        return squares.sum() / (2 * student.size)

    @staticmethod
    def backward(ctx, grad):
        grad = grad / ctx.maps[0].size
        factors = [ctx.values[2] * grad, ctx.slope * grad]
        return map_of(_gradient, ctx.maps, [*ctx.values, *factors]).reshape(ctx.shape), None


# Two maps at a time, whatever comes in: on a GPU a map is the whole.
def _gap_products(student, teacher, *values):
    gap = _gap(student, teacher, *values)
    products = product_(centred(student, *values[:2]), gap)
    return square_(gap), products


def _gradient(student, teacher, *values):
    *values, scale, slope = values
    gradient = times_(_gap(student, teacher, *values), scale)
    return difference_(gradient, times_(centred(student, *values[:2]), slope))


def _gap(student, teacher, *values):
    return difference_(standardised(student, *values[:3]), standardised(teacher, *values[3:]))


class PKDLoss(nn.Layer):
    """:func:`pkd` with its options; weighting is the term's business.

    The recipe takes the four finest FPN outputs, weight 6 each (10 from a very strong teacher).
    There are no parameters, so channels must agree or a connector stand before it.

    .. code-block:: yaml

        loss: {name: pkd}
        weight: 6.0
    """

    def __init__(self, unbiased=False):
        super().__init__()
        self.unbiased = unbiased

    def forward(self, student, teacher):
        return pkd(student, teacher, self.unbiased)
