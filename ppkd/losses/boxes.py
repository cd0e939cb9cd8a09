"""Points of cells, and boxes around them given by distances to their edges.

GIoU: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019 (arXiv 1902.09630). Edges as distributions:
Li et al., "Generalized Focal Loss", NeurIPS 2020 (arXiv 2006.04388).
"""

import functools

import paddle
import paddle.nn.functional as F

_EPS = 1e-10


def cell_points(sizes, strides, cell_offset):
    """The points of the cells of all levels, one level after the other, row by row.

    Args:
        sizes: ``(height, width)`` of each level, in cells.
        strides: of the levels, in pixels.
        cell_offset: where the point lies in its cell, from 0 (upper left corner) to 1.

    Returns:
        A list of (height * width, 2) ``x y`` in pixels, one entry a level.
    """
    points = []
    for (height, width), stride in zip(sizes, strides):
        x, y = ((paddle.arange(n, dtype="float32") + cell_offset) * stride for n in (width, height))
        x, y = x.expand([height, width]), y.unsqueeze(1).expand([height, width])
        points.append(paddle.stack([x, y], axis=2).reshape([-1, 2]))
    return points


def distances(edges, first_bin=0):
    """Expected distances (..., 4), in strides, of edge logits (..., 4 * bins); the first bin means `first_bin`."""
    edges = edges.reshape([*edges.shape[:-1], 4, edges.shape[-1] // 4])
    return expected(F.softmax(edges, axis=-1), first_bin)


def expected(shares, first_bin=0):
    """Expected distances (..., 4) of distributions (..., 4, bins)."""
    return paddle.matmul(shares, _values(first_bin, shares.shape[-1], shares.dtype, str(shares.place)))


@functools.lru_cache(maxsize=64)
def _values(first, count, dtype, place):
    return paddle.arange(first, first + count, dtype=dtype)


def iou(a, b):
    """IoU of two boxes around one point, given by their distances left, top, right, bottom (..., 4) from it.

    A box whose edges have passed each other has no area: its IoU with anything is 0.
    """
    overlap, union, _ = _areas(a, b)
    return overlap / union


def giou_loss(a, b):
    """1 - GIoU of two boxes around one point, given by their distances left, top, right, bottom (..., 4) from it.

    From 0 to 2. A box whose edges have passed each other, which a head with bins below zero can predict, has no area;
    PaddleDetection multiplies its two negative sides, and the loss can be any number.
    """
    overlap, union, enclosing = _areas(a, b)
    return 2 - (overlap / union + union / enclosing)


def corner_giou_loss(boxes, targets, eps=1e-6):
    """1 - GIoU of boxes given by their corners x1 y1 x2 y2 (..., 4), as MMDetection computes it.

    A predicted box may be turned inside out. It overlaps with nothing, and its area is the product of its sides with
    their signs: the loss stays finite, for union and enclosing box are at least `eps`, and pulls the corners back.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    wanted_low, wanted_high = targets[..., :2], targets[..., 2:]
    overlap = _product((paddle.minimum(high, wanted_high) - paddle.maximum(low, wanted_low)).clip(min=0))
    enclosing = _product((paddle.maximum(high, wanted_high) - paddle.minimum(low, wanted_low)).clip(min=0))
    union = (_product(high - low) + _product(wanted_high - wanted_low) - overlap).clip(min=eps)
    enclosing = enclosing.clip(min=eps)
    return 1 - overlap / union + (enclosing - union) / enclosing


def _product(sides):
    return sides[..., 0] * sides[..., 1]  # the gradient of Paddle's prod divides by what may be zero


def _areas(a, b):
    """Overlap, union and enclosing box; the latter two above zero."""

    # Around one point the edges of the overlap are the nearer ones, those of the enclosing box the farther ones.
    boxes = paddle.stack([a, b, paddle.minimum(a, b), paddle.maximum(a, b)])
    low, high = boxes.split(2, axis=-1)
    width, height = (low + high).clip(min=0).unbind(axis=-1)
    least = _least(width.ndim, width.dtype, str(width.place))
    one, other, overlap, enclosing = (width * height + least).unbind()
    return overlap, one + other - overlap, enclosing


@functools.lru_cache(maxsize=64)
def _least(ndim, dtype, place):
    """What areas get, so that the union, of the first and the second box, and the enclosing box are above zero."""
    return paddle.to_tensor([_EPS, 0.0, 0.0, _EPS], dtype=dtype).reshape([4] + [1] * (ndim - 1))
