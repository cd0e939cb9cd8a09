"""Parts of a recorded tensor: heads often pack what a method wants apart into the channels of one map.

And what a head's raw boxes say: distances to their edges, in strides. All can be differentiated.
"""

import math

import paddle
import paddle.nn.functional as F

from ppkd.losses.kernels import numbers


def channels(x, begin, end):
    """Channels `begin` to `end` of (N, C, H, W)."""
    return x[:, begin:end]


def fields(x, anchors, begin, end, skip=0):
    """Fields `begin` to `end` of every anchor.

    Args:
        x: (N, skip + anchors * F, H, W), the fields of one anchor next to each other.
        anchors: anchors per position.
        skip: channels before the first anchor's.

    Returns:
        (N, anchors * (end - begin), H, W).
    """
    batch, count, height, width = x.shape
    x = x[:, skip:].reshape([batch, anchors, (count - skip) // anchors, height, width])
    return x[:, :, begin:end].flatten(1, 2)


def expected_distances(x, begin=0, first_bin=0):
    """Distances to a box's edges as the expectations of distributions over them (arXiv 2006.04388, eq. 2).

    Args:
        x: (N, begin + 4 * bins, H, W) logits, all bins of the left edge first, then top, right, bottom.
        begin: channels before them.
        first_bin: what the first bin means, in strides; the others follow in steps of one.

    Returns:
        (N, 4, H, W) left, top, right, bottom in strides, from the point of the cell.
    """
    x = _up(x[:, begin:])
    batch, count, height, width = x.shape
    edges = F.softmax(x.reshape([batch, 4, count // 4, height, width]), axis=2)
    bins = paddle.arange(first_bin, first_bin + count // 4, dtype="float32")
    return (edges * bins.reshape([1, 1, -1, 1, 1])).sum(axis=2)


def rectified_distances(x):
    """(N, 4, H, W) distances in strides as FCOS makes them positive if it was trained on distances in strides."""
    return F.relu(_up(x))


def raw_distances(x):
    """(N, 4, H, W) distances in strides as a head gives them, of either sign."""
    return _up(x)


def exponential_distances(x, stride):
    """(N, 4, H, W) distances in strides of logarithms of distances in pixels, as of the first FCOS."""
    return _up(x).exp() / stride


def boxes_on_anchors(x, sizes, weights=(1.0, 1.0, 1.0, 1.0)):
    """Edges of boxes given by deltas on anchors around the cell's point (Faster R-CNN, arXiv 1506.01497, eq. 2).

    Args:
        x: (N, 4 * A, H, W) deltas of the centre in anchor sizes and of the logarithms of the sizes.
        sizes: width and height of each of the A anchors, in strides.
        weights: what the head multiplied the four deltas by in training.

    Returns:
        (N, 4 * A, H, W) left, top, right, bottom of each anchor's box in strides, from the cell's point.
    """
    x, y, w, h = _by_anchor(x, len(sizes))
    # As ppdet and Paddle's own operator, in both: no box more than 62.5 times its anchor.
    w, h = ((size / weight).clip(max=_LOG_MOST) for size, weight in zip((w, h), weights[2:]))
    widths, heights = _per_anchor(sizes, w)
    x, y = x / weights[0] * widths, y / weights[1] * heights
    return _edges(x, y, w.exp() * widths, h.exp() * heights)


def boxes_in_cells(x, sizes, cell_offset, scale=1.0, skip=0):
    """Edges of YOLOv3's boxes: sigmoids place the centre in the cell, exponentials scale the anchor (1804.02767).

    Args:
        x: (N, skip + A * F, H, W), of each anchor first the four fields of the box.
        sizes: width and height of each of the A anchors, in strides.
        cell_offset: where the point lies in its cell that distances are measured from, from 0 to 1.
        scale: how far beyond its cell a centre can lie (``scale_x_y``): 1 for not at all.
        skip: channels before the first anchor's.

    Returns:
        (N, 4 * A, H, W) left, top, right, bottom of each anchor's box in strides.
    """
    x, y, w, h = _by_anchor(fields(x, len(sizes), 0, 4, skip), len(sizes))
    x, y = (scale * F.sigmoid(centre) - 0.5 * (scale - 1) - cell_offset for centre in (x, y))
    widths, heights = _per_anchor(sizes, w)
    return _edges(x, y, w.exp() * widths, h.exp() * heights)


def boxes_at_points(x):
    """Edges of YOLOX's boxes: (N, C, H, W) with x and y of the centre from the cell's point, log w and log h before
    all else, in strides -> (N, 4, H, W) left, top, right, bottom in strides.
    """
    x, y, w, h = _by_anchor(x[:, :4], 1)
    return _edges(x, y, w.exp(), h.exp())


_LOG_MOST = math.log(1000 / 16)


def _up(x):
    """In float32: exponentials overflow early in half precision."""
    return x.astype("float32")


def _by_anchor(x, anchors):
    """The four fields of (N, 4 * anchors, H, W), each (N, anchors, H, W)."""
    batch, _, height, width = x.shape
    return _up(x).reshape([batch, anchors, 4, height, width]).unbind(axis=2)


def _per_anchor(sizes, like):
    """Widths and heights, each (1, anchors, 1, 1)."""
    return (numbers(side, like).reshape([1, -1, 1, 1]) for side in zip(*sizes))


def _edges(x, y, w, h):
    """Distances (N, 4 * A, H, W) to the edges of boxes (N, A, H, W) from the point that centres are relative to."""
    return paddle.stack([w / 2 - x, h / 2 - y, w / 2 + x, h / 2 + y], axis=2).flatten(1, 2)
