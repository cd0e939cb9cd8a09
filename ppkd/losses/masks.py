"""Where the boxes of images lie on a feature map, as FGD (Yang et al., CVPR 2022, arXiv 2111.11837) weighs them."""

import paddle

from .box_kernels import weighed_cells
from .common import as_float, at_least_one_box


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
    (found,) = masks_of_levels(boxes, boxes_valid, frame, [map_size])
    return tuple(found.reshape([-1, 2, *map_size]).unbind(axis=1))


def masks_of_levels(boxes, boxes_valid, frame, sizes):
    """:func:`box_masks` on maps of several ``(H, W)``: a list of foreground and background as one, (N, 2, P)."""
    boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
    with paddle.no_grad():
        return weighed_cells(boxes, boxes_valid, as_float(frame), [tuple(size) for size in sizes])
