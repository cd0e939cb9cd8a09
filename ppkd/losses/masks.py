"""Where the boxes of images lie on a feature map, as FGD (Yang et al., CVPR 2022, arXiv 2111.11837) weighs them."""

from .box_kernels import foreground
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
    return tuple(x.reshape([-1, *map_size]) for x in masks(boxes, boxes_valid, frame, map_size))


def masks(boxes, boxes_valid, frame, map_size):
    """:func:`box_masks` as (N, P)."""
    boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
    covered = foreground(boxes, boxes_valid, as_float(frame), map_size)
    empty = 1 - covered.sign()
    return covered, empty / empty.sum(axis=1, keepdim=True).clip(min=1.0)
