"""Sets of points and the boxes that they mean (arXiv 1904.11490, section 3)."""

import paddle

from ppkd.losses.common import safe_sqrt


def moment_boxes(points, moment, gradient):
    """The boxes of point sets: their mean, and their standard deviation times a learned factor to either side.

    Args:
        points: (N, 2 * K, H, W), ordered y1 x1 y2 x2 and so on.
        moment: (2,) logarithms of the factors, of x and of y.
        gradient: factor on the gradient that reaches `moment`.

    Returns:
        (N, 4, H, W): x1 y1 x2 y2 in the unit of the points.
    """
    batch, channels, height, width = points.shape
    count = channels // 2
    sets = points.reshape([batch, count, 2, height, width])
    middle = sets.mean(axis=1)
    variance = (sets - middle.unsqueeze(1)).square().sum(axis=1) / (count - 1)
    # What is detached is a product: of a parameter itself a static graph would save the copy too.
    factor = (moment * gradient + (moment * (1 - gradient)).detach()).exp().flip(0).reshape([1, 2, 1, 1])
    half = safe_sqrt(variance) * factor
    return paddle.concat([middle - half, middle + half], axis=1)[:, [1, 0, 3, 2]]


def regular_grid(side=3):
    """(1, 2 * side^2, 1, 1): the places y x of a convolution's kernel, row by row, from its middle."""
    steps = paddle.arange(side, dtype="float32") - (side - 1) / 2
    rows = steps.unsqueeze(1).expand([side, side])
    return paddle.stack([rows, rows.t()], axis=2).reshape([1, -1, 1, 1])


def valid_places(sizes, strides, padded):
    """Which points of all levels lie in an image as it was padded for itself.

    Args:
        sizes: ``(height, width)`` of each level, in cells.
        strides: of the levels, in pixels.
        padded: (N, 2) heights and widths.

    Returns:
        (N, P) bool, one level after the other, row by row.
    """
    found = []
    for size, stride in zip(sizes, strides):
        limits = paddle.ceil(padded.astype("float32") / stride)
        rows, columns = (paddle.arange(n, dtype="float32") < limits[:, axis : axis + 1] for axis, n in enumerate(size))
        found.append(paddle.logical_and(rows.unsqueeze(2), columns.unsqueeze(1)).flatten(1))
    return paddle.concat(found, axis=1)
