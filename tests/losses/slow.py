"""Slow and plain NumPy that the tests compare losses with, and gradients by finite differences; all in float64."""

import numpy as np
import paddle


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def binary_cross_entropy(p, target):
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def corners(distances, point=(7.0, 5.0)):
    """``x1 y1 x2 y2`` of a box given by its distances left, top, right, bottom from a point."""
    (x, y), (left, top, right, bottom) = point, distances
    return x - left, y - top, x + right, y + bottom


def _area(x1, y1, x2, y2):
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def iou(a, b):
    """Of two boxes by their corners."""
    x1, y1, x2, y2 = zip(a, b)
    overlap = _area(max(x1), max(y1), min(x2), min(y2))
    return overlap / (_area(*a) + _area(*b) - overlap)


def giou(a, b):
    """Of two boxes by their corners, as in the paper."""
    x1, y1, x2, y2 = zip(a, b)
    overlap = _area(max(x1), max(y1), min(x2), min(y2))
    union = _area(*a) + _area(*b) - overlap
    hull = _area(min(x1), min(y1), max(x2), max(y2))
    return overlap / union - (hull - union) / hull


def cells(levels):
    """Level, image, row and column of every cell of a list of maps (N, C, H, W)."""
    for level, x in enumerate(levels):
        for image, row, column in np.ndindex(x.shape[0], *x.shape[2:]):
            yield level, image, row, column


def seen(teacher):
    """The sum over the cells of the teacher's highest score, at least 1 an image."""
    total = sum(sigmoid(teacher[a][n, :, i, j]).max() for a, n, i, j in cells(teacher))
    return max(total, len(teacher[0]))


def numeric_gradients(function, arrays, step=1e-6):
    """Central differences of ``function(arrays)`` by every element of a list of arrays."""
    gradients = []
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for place in np.ndindex(*array.shape):
            values = []
            for sign in (1, -1):
                moved = [x.copy() for x in arrays]
                moved[k][place] += sign * step
                values.append(function(moved))
            gradient[place] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def tensors(arrays, trained=False, dtype="float64"):
    return [paddle.to_tensor(x, dtype=dtype, stop_gradient=not trained) for x in arrays]


def agree(loss, reference, arrays):
    """Assert that a loss has the value and the gradients of its reference.

    Args:
        loss: from a list of tensors to a scalar tensor.
        reference: from the same as float64 arrays to a number.
        arrays: the point, a list of float64 arrays.
    """
    inputs = tensors(arrays, trained=True)
    value = loss(inputs)
    value.backward()
    np.testing.assert_allclose(float(value), reference(arrays), rtol=1e-7)
    for x, expected in zip(inputs, numeric_gradients(reference, arrays)):
        limit = 1e-6 * max(1e-3, np.abs(expected).max())
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5, atol=limit)
