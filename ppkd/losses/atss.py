"""Which anchors belong to a box: positive ones by ATSS (Zhang et al., CVPR 2020, arXiv 1912.02424), and the valuable
localisation region of Localisation Distillation (Zheng et al., CVPR 2022, arXiv 2102.12252).
"""

import functools
import itertools
import math

import paddle

from .box_kernels import geometry
from .boxes import cell_points
from .common import as_float, at_least_one_box
from .kernels import reduced

_INSIDE = 0.01  # pixels that an anchor's centre must lie inside a box to be positive


def square_anchors(sizes, strides, scale, cell_offset):
    """Square anchors of all levels, one after the other, row by row.

    Args:
        sizes: ``(height, width)`` of each level, in cells.
        strides: of the levels, in pixels.
        scale: side of an anchor in strides.
        cell_offset: where the centre lies in its cell, from 0 (upper left corner) to 1.

    Returns:
        (A, 4) ``x1 y1 x2 y2`` in pixels.
    """
    anchors = []
    for centre, stride in zip(cell_points(sizes, strides, cell_offset), strides):
        half = scale * stride / 2
        anchors.append(paddle.concat([centre - half, centre + half], axis=1))
    return paddle.concat(anchors)


def atss_regions(anchors, num_level_anchors, boxes, boxes_valid, topk=9, biased_positives=False):
    """Positive anchors by ATSS, and the valuable localisation region (VLR) around each box.

    Of each level a box takes the ``topk`` anchors with the nearest centres; its threshold is the
    mean plus the (unbiased) standard deviation of their IoU. Positive are those of them that
    reach the threshold and have their centre inside the box. The region holds **every** anchor
    with ``threshold / 4 <= d < threshold``, where
    ``d = overlap / area of the anchor - rho^2 / c^2``, rho the distance of the centres and c the
    diagonal of the enclosing box. (The paper calls d the distance IoU, which has the area of the
    union there; the authors' code has the anchor's.)

    Args:
        anchors: (A, 4) ``x1 y1 x2 y2``, all levels one after the other.
        num_level_anchors: how many anchors each level has, python ints.
        boxes: (N, M, 4) in the anchors' units; M may be 0.
        boxes_valid: (N, M), which rows of ``boxes`` are boxes.
        topk: anchors per level and box.
        biased_positives: take the biased standard deviation in the threshold of positives, but not in that of the
            region: PaddleDetection's way.

    Returns:
        ``assigned`` (N, A) int64, 0 for background, else 1 + index of the box; where several
        boxes want an anchor, the one of largest IoU. ``vlr_region`` (N, A) float32: the largest
        IoU with a box whose region holds the anchor, 0 where none does.
    """
    with paddle.no_grad():
        boxes, boxes_valid = at_least_one_box(boxes, boxes_valid)
        anchors = as_float(anchors)

        def found(first, boxes, boxes_valid):
            claim, region = _claims(anchors, num_level_anchors, boxes, boxes_valid, topk, biased_positives)
            claim, index, region = claim.max(axis=1), claim.argmax(axis=1), region.max(axis=1)
            return claim, (index + 1 + first) * (claim > 0).astype("int64"), region

        def larger(one, other):
            # Of equal claims the first box's stands.
            index = paddle.where(other[0] > one[0], other[1], one[1])
            return paddle.maximum(one[0], other[0]), index, paddle.maximum(one[2], other[2])

        shape = [*boxes.shape[:2], anchors.shape[0]]
        _, assigned, vlr_region = reduced(found, larger, boxes, boxes_valid, shape=shape)
    return assigned, vlr_region


def _claims(anchors, num_level_anchors, boxes, boxes_valid, topk, biased_positives):
    """For boxes (N, M, 4), both (N, M, A): the IoU where an anchor is positive, and where it lies in the region."""
    iou, vlr_distance, centre_distance = geometry(anchors, boxes)
    nearest = _nearest(centre_distance, num_level_anchors, topk)
    candidates = paddle.take_along_axis(iou, nearest, axis=2)
    mean = candidates.mean(axis=2, keepdim=True)
    squares, count = (candidates - mean).square().sum(axis=2, keepdim=True), candidates.shape[2]
    # What is no box wants no anchor.
    mean = paddle.where(boxes_valid.unsqueeze(-1).astype("bool"), mean, paddle.full_like(mean, math.inf))
    threshold = mean + (squares / max(count - 1, 1)).sqrt()
    region = (vlr_distance >= 0.25 * threshold) & (vlr_distance < threshold)

    if biased_positives:
        threshold = mean + (squares / count).sqrt()
    positive = (candidates >= threshold) & (_margin(anchors, nearest, boxes) > _INSIDE)
    claim = paddle.put_along_axis(
        paddle.zeros_like(iou), nearest, candidates * positive.astype("float32"), axis=2
    )
    return claim, iou * region.astype("float32")


def _nearest(centre_distance, num_level_anchors, topk):
    """Indices (N, M, k) of the ``topk`` nearest anchors of each level."""
    levels = paddle.split(centre_distance, list(num_level_anchors), axis=2)
    found = [paddle.topk(level, min(topk, level.shape[2]), axis=2, largest=False)[1] for level in levels]
    return paddle.concat(found, axis=2) + _first_of_level(tuple(num_level_anchors), topk, str(centre_distance.place))


@functools.lru_cache(maxsize=64)
def _first_of_level(counts, topk, place):
    """(k,): the number of the first anchor of the level of which each of the ``topk`` of all levels is."""
    begins = zip(itertools.accumulate(counts, initial=0), counts)
    first = [begin for begin, count in begins for _ in range(min(topk, count))]
    return paddle.to_tensor(first, dtype="int64")


def _margin(anchors, index, boxes):
    """How far the centres of the anchors of ``index`` (N, M, k) lie inside the boxes (N, M, 4), in pixels."""
    centres = paddle.gather(anchors.reshape([-1, 2, 2]).mean(axis=1), index.flatten()).reshape([*index.shape, 2])
    low, high = boxes.reshape([*boxes.shape[:2], 1, 2, 2]).unbind(axis=-2)
    return paddle.minimum(centres - low, high - centres).min(axis=-1)
