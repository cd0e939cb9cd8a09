"""Where the boxes of images lie on a feature map, as FGD (Yang et al., CVPR 2022, arXiv 2111.11837) weighs them."""

import functools

import paddle

from . import kernels
from .common import as_float, at_least_one_box
from .kernels import numbers, of_one_shape, reduced


def box_masks(boxes, boxes_valid, frame, map_size):
    """Where the boxes of each image lie on a feature map.

    A box covers the cells ``floor(x1)..ceil(x2)`` by ``floor(y1)..ceil(y2)``, both ends included,
    of its corners scaled from ``frame`` to the map, and weighs ``1 / number of cells`` there,
    counted before clipping to the map. Where boxes overlap the largest weight (of the smallest
    box) stands. The background is every other cell, with the weight ``1 / number of them``.

    Args:
        boxes: (N, M, 4) ``x1 y1 x2 y2`` in pixels; M may be 0.
        boxes_valid: (N, M), true (or 1) where a row of ``boxes`` is a box and not padding.
        frame: (N, 2) or (1, 2), the height and width in pixels that the map stands for.
        map_size: ``(H, W)`` of the map.

    Returns:
        Foreground and background, both (N, H, W) float32.
    """
    return tuple(x.reshape([-1, *map_size]) for x in masks(boxes, boxes_valid, frame, map_size))


def masks(boxes, boxes_valid, frame, map_size):
    """:func:`box_masks` as (N, P)."""
    boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
    find = _foreground if kernels.on_cpu(boxes) else _foreground_at_once
    foreground = find(boxes, boxes_valid, as_float(frame), map_size)
    empty = 1 - foreground.sign()
    return foreground, empty / empty.sum(axis=1, keepdim=True).clip(min=1.0)


def _foreground_at_once(boxes, boxes_valid, frame, map_size):
    """`_foreground` for a device that wants few operations: every corner is compared with every cell."""
    scale, limits = _cells(tuple(map_size), str(boxes.place))
    # Left, top, and below zero right and bottom: a cell is in a box if all four are below their limits.
    corners = boxes / frame.index_select(numbers([1, 0, 1, 0], frame, "int64"), axis=1).unsqueeze(1) * scale
    inside = (corners.unsqueeze(3) < limits).all(axis=2)
    sides = 1 - corners.floor().reshape([*boxes.shape[:2], 2, 2]).sum(axis=2)
    weight = boxes_valid / sides.prod(axis=2).clip(min=1.0)
    return inside.astype("float32").multiply_(weight.unsqueeze(2)).max(axis=1)


@functools.lru_cache(maxsize=64)
def _cells(map_size, place):
    """What corners in units of the frame are multiplied with, (4,), and the limits (4, P) of `_foreground_at_once`."""
    height, width = map_size
    x = paddle.arange(width, dtype="float32").expand([height, width]).flatten()
    y = paddle.arange(height, dtype="float32").unsqueeze(1).expand([height, width]).flatten()
    scale = paddle.to_tensor([width, height, -width, -height], dtype="float32")
    return scale, paddle.stack([x + 1, y + 1, 1 - x, 1 - y])


def _foreground(boxes, boxes_valid, frame, map_size):
    """The foreground of :func:`box_masks` as (N, P)."""
    height, width = map_size
    x1, y1, x2, y2 = boxes.unbind(axis=-1)
    # Division first: in float32 the other order can push a corner over a cell border.
    x_lo, x_hi = (x1 / frame[:, 1:] * width).floor(), (x2 / frame[:, 1:] * width).ceil()
    y_lo, y_hi = (y1 / frame[:, :1] * height).floor(), (y2 / frame[:, :1] * height).ceil()
    cells = (x_hi + 1 - x_lo) * (y_hi + 1 - y_lo)
    weight = boxes_valid / cells.clip(min=1.0)
    rows = _inside(y_lo, y_hi, height) * weight.unsqueeze(-1)
    columns = _inside(x_lo, x_hi, width)
    return _largest(rows, columns).flatten(1)


def _largest(rows, columns):
    """(N, H, W): the largest of the outer products of ``rows`` (N, M, H) and ``columns`` (N, M, W)."""

    def largest(_, rows, columns):
        row, column = of_one_shape(rows.unsqueeze(3), columns.unsqueeze(2))
        return (row * column).max(axis=1)

    (batch, number, height), width = rows.shape, columns.shape[2]
    return reduced(largest, paddle.maximum, rows, columns, shape=[batch, number, height * width])


def _inside(low, high, length):
    """(N, M, length): 1 where a cell index is in ``low..high``, else 0."""
    index = paddle.arange(length, dtype="float32")
    low, high = low.unsqueeze(-1), high.unsqueeze(-1)
    return ((index >= low) & (index <= high)).astype("float32")
