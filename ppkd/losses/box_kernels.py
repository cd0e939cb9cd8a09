"""How boxes lie to anchors and to the cells of a map, each in the way that suits the device.

On the CPU what is made of all pairs goes piece by piece and axis by axis; a device that wants few operations compares
all at once. The formulas stand in :func:`atss.atss_regions` and :func:`masks.box_masks`.
"""

import functools

import paddle

from . import kernels
from .kernels import numbers, of_one_shape, reduced

_EPS = 1e-6


def geometry(anchors, boxes):
    """How anchors lie to boxes.

    Args:
        anchors: (A, 4).
        boxes: (N, M, 4).

    Returns:
        IoU, the d of :func:`atss.atss_regions` and the distance of the centres, each (N, M, A).
    """
    if not kernels.on_cpu(boxes):
        return _geometry_of_corners(anchors.reshape([-1, 2, 2]), boxes.reshape([*boxes.shape[:2], 1, 2, 2]))
    sides, areas, centres = zip(_outline(anchors), _outline(boxes.unsqueeze(2)))
    areas, centres = of_one_shape(*areas), of_one_shape(*centres[0], *centres[1])
    sides = of_one_shape(*sides[0], *sides[1])
    overlap, distance = _overlap(*sides), _squared(centres[0] - centres[2], centres[1] - centres[3])
    iou = overlap / (areas[0] + areas[1] - overlap).clip(min=_EPS)
    vlr_distance = overlap / areas[0].clip(min=_EPS) - distance / _enclosing_diagonal(*sides)
    return iou, vlr_distance, distance.sqrt()


def _geometry_of_corners(anchors, boxes):
    """`geometry` in half the launches: both axes at once, of anchors (A, 2, 2) and boxes (N, M, 1, 2, 2)."""
    (a_low, a_high), (low, high) = anchors.unbind(axis=-2), boxes.unbind(axis=-2)
    area, a_area = (high - low).prod(axis=-1), (a_high - a_low).prod(axis=-1)
    overlap = (paddle.minimum(a_high, high) - paddle.maximum(a_low, low)).clip(min=0.0).prod(axis=-1)
    distance = (anchors.mean(axis=-2) - boxes.mean(axis=-2)).square().sum(axis=-1)
    diagonal = (paddle.maximum(a_high, high) - paddle.minimum(a_low, low)).square().sum(axis=-1) + _EPS
    iou = overlap / (a_area + area - overlap).clip(min=_EPS)
    return iou, overlap / a_area.clip(min=_EPS) - distance / diagonal, distance.sqrt()


# Functions of their own, so that what they make is free again, and still in the cache, when the next one needs memory.
def _outline(boxes):
    """Corners ``(x1, y1, x2, y2)``, area and centre ``(x, y)`` of boxes (..., 4)."""
    x1, y1, x2, y2 = boxes.unbind(axis=-1)
    return (x1, y1, x2, y2), (x2 - x1) * (y2 - y1), ((x1 + x2) / 2, (y1 + y2) / 2)


def _overlap(ax1, ay1, ax2, ay2, x1, y1, x2, y2):
    width = (paddle.minimum(ax2, x2) - paddle.maximum(ax1, x1)).clip(min=0.0)
    return width * (paddle.minimum(ay2, y2) - paddle.maximum(ay1, y1)).clip(min=0.0)


def _enclosing_diagonal(ax1, ay1, ax2, ay2, x1, y1, x2, y2):
    width = paddle.maximum(ax2, x2) - paddle.minimum(ax1, x1)
    return _squared(width, paddle.maximum(ay2, y2) - paddle.minimum(ay1, y1)) + _EPS


def _squared(x, y):
    return x.square() + y.square()


def weighed_cells(boxes, boxes_valid, frame, sizes):
    """The two of :func:`masks.box_masks` for maps of several sizes, as :func:`masks.masks_of_levels` gives them.

    Args:
        boxes: (N, M, 4), M at least 1.
        boxes_valid, frame: as for :func:`masks.box_masks`, in float32.
        sizes: list of ``(H, W)``.
    """
    if not kernels.on_cpu(boxes):
        return _weighed_at_once(boxes, boxes_valid, frame, tuple(sizes))
    found = []
    for size in sizes:
        covered = _foreground(boxes, boxes_valid, frame, size)
        empty = 1 - covered.sign()
        rest = empty / empty.sum(axis=1, keepdim=True).clip(min=1.0)
        found.append(paddle.stack([covered, rest], axis=1))
    return found


def _foreground(boxes, boxes_valid, frame, map_size):
    """The foreground of one map (N, P)."""
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


def _weighed_at_once(boxes, boxes_valid, frame, sizes):
    """`weighed_cells` for a device that wants few operations: of all maps as one, of A cells."""
    grid = _grid(sizes, str(boxes.place))
    # Left, top, and below zero right and bottom: a column or row is in a box if both its edges are below their limits.
    frame = frame.index_select(numbers([1, 0], frame, "int64"), axis=1).reshape([-1, 1, 1, 1, 2])
    corners = boxes.reshape([*boxes.shape[:2], 1, 2, 2]) / frame * grid.scale
    sides = 1 - corners.floor().sum(axis=3)
    weight = boxes_valid.unsqueeze(2) / sides.prod(axis=3).clip(min=1.0)
    inside = corners.flatten(2).index_select(grid.edges, axis=2) < grid.limits
    inside = inside.reshape([*boxes.shape[:2], 2, -1]).all(axis=2).astype("float32")
    rows = inside * weight.index_select(grid.line_level, axis=2)
    covered = inside.index_select(grid.column, axis=2).multiply_(rows.index_select(grid.row, axis=2))
    covered = covered.max(axis=1, keepdim=True)
    empty = 1 - covered.sign()
    number = paddle.matmul(empty, grid.members).clip(min=1.0)
    found = paddle.concat([covered, empty / number.index_select(grid.level, axis=2)], axis=1)
    return found.split(grid.counts, axis=2) if len(sizes) > 1 else [found]


class _Grid:
    """The cells of maps of ``sizes`` one after the other, A of them, and the maps' columns and rows, Q.

    Attributes:
        counts: cells of each map.
        scale: (L, 2, 2), what corners in units of the frame are multiplied with, both of ``x y``.
        edges: (2 * Q,), which of a box's L * 4 edges each column or row has to lie behind, and then before.
        limits: (2 * Q,), what that edge is below then.
        line_level: (Q,), the map of each column or row.
        column, row, level: (A,), of each cell.
        members: (A, L), 1 where a cell is of a map.
    """

    def __init__(self, sizes):
        self.counts = [height * width for height, width in sizes]
        self.scale = paddle.to_tensor([[[w, h], [-w, -h]] for h, w in sizes], dtype="float32")
        near, index, columns, rows, levels = [], [], [], [], []
        for level, (height, width) in enumerate(sizes):
            cell = paddle.arange(height * width, dtype="int32")
            columns.append(len(near) + cell % width)
            rows.append(len(near) + width + cell // width)
            levels.append(paddle.full_like(cell, level))
            near += [4 * level] * width + [4 * level + 1] * height
            index += [*range(width), *range(height)]
        self.edges = paddle.to_tensor([*near, *(edge + 2 for edge in near)], dtype="int32")
        self.limits = paddle.to_tensor([*(i + 1 for i in index), *(1 - i for i in index)], dtype="float32")
        self.line_level = self.edges[: len(near)] // 4
        self.column, self.row, self.level = (paddle.concat(x) for x in (columns, rows, levels))
        self.members = (self.level.unsqueeze(1) == paddle.arange(len(sizes), dtype="int32")).astype("float32")


@functools.lru_cache(maxsize=64)
def _grid(sizes, place):
    return _Grid(sizes)


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
