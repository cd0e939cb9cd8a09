"""Which cells of SOLO's grids learn which object (arXiv 1912.04488, section 3.3), made by the reader."""

import cv2
import numpy as np
from ppdet.data import transform
from ppdet.data.transform.operators import BaseOperator, register_op


def register():
    """ppdet looks transforms up in its package by name; nothing but importing this module is needed otherwise."""
    transform.Gt2SOLOTarget = Gt2SOLOTarget


@register_op
class Gt2SOLOTarget(BaseOperator):
    """Replaces the boxes, classes and masks of a batch by what the cells of all grids learn.

    Args: see `targets`.
    """

    def __init__(self, num_grids, scale_ranges, strides=(8, 8, 16, 32, 32), pos_scale=0.2):
        super().__init__()
        self._settings = tuple(num_grids), tuple(map(tuple, scale_ranges)), tuple(strides), pos_scale

    def __call__(self, samples, context=None):
        return batch_targets(samples, *self._settings)


def batch_targets(samples, num_grids, scale_ranges, strides, pos_scale):
    """Add `targets` to the samples of a batch, which then have the same number of masks a level, at least one.

    What is removed: ``gt_bbox``, ``gt_class``, ``gt_segm``, ``gt_poly``, ``is_crowd`` and ``gt_area``.
    """
    made = [
        targets(sample["gt_bbox"], sample["gt_class"], sample["gt_segm"], sample["image"].shape[1:],
                num_grids, scale_ranges, strides, pos_scale)
        for sample in samples
    ]  # fmt: skip
    for level in range(len(num_grids)):
        most = max(1, *(len(one[level][2]) for one in made))
        for sample, one in zip(samples, made):
            labels, cells, masks = one[level]
            sample[f"solo_labels{level}"], sample[f"solo_cells{level}"] = labels, cells
            sample[f"solo_masks{level}"] = np.pad(masks, ((0, most - len(masks)), (0, 0), (0, 0)))
    for sample in samples:
        for name in ("gt_bbox", "gt_class", "gt_segm", "gt_poly", "is_crowd", "gt_area"):
            sample.pop(name, None)
    return samples


def targets(boxes, classes, masks, size, num_grids, scale_ranges, strides, pos_scale):
    """What the cells of an image's grids learn.

    An object belongs to every level whose range has the square root of its box's area; its cells are those around its
    mask's centre of mass, at most three by three. Of two objects that want a cell the later one has it.

    Args:
        boxes: (n, 4) in pixels.
        classes: (n,) or (n, 1).
        masks: (n, H, W) of 0 and 1, of the size of the batch.
        size: H and W.
        num_grids: cells on either side, of each level.
        scale_ranges: least and largest size of its objects, of each level.
        strides: of the head's maps, in pixels; masks are twice as fine.
        pos_scale: part of a box around the centre of mass that has the object's cells.

    Returns:
        For each level: labels (G, G) int64 with -1 for background, the cells' object (G, G) int64 with -1 for none,
        and the objects' masks (m, h, w) uint8.
    """
    boxes, classes = np.asarray(boxes, "float32").reshape(-1, 4), np.asarray(classes).reshape(-1)
    extent = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(extent[:, 0] * extent[:, 1])
    maps = [[2 * -(-side // stride) for side in size] for stride in strides]
    frame = np.array(maps[0], "float32") * (strides[0] // 2)
    centres = [_centre(mask) for mask in masks]
    found = []
    for (low, high), grid, stride, area in zip(scale_ranges, num_grids, strides, maps):
        labels, cells = np.full([2, grid, grid], -1, "int64")
        reduced = []
        for i in np.flatnonzero((sizes >= low) & (sizes <= high)):
            if centres[i] is None:
                continue
            half = np.float32(0.5) * extent[i, ::-1] * np.float32(pos_scale)
            place = tuple(_span(*x, grid) for x in zip(centres[i], half, frame))
            labels[place], cells[place] = classes[i], len(reduced)
            reduced.append(_reduced(masks[i], 2 / stride, area))
        found.append((labels, cells, np.stack(reduced) if reduced else np.zeros([0, *area], "uint8")))
    return found


def _centre(mask):
    """y and x of a mask's centre of mass, in float32; None of an empty one."""
    y, x = np.nonzero(mask)
    return None if len(y) == 0 else [np.float32(v.sum()) / np.float32(len(y)) for v in (y, x)]


def _span(centre, half, length, grid):
    """The cells of an object along one side."""

    def cell(v):
        # In float32 as the reference: there the multiples of a cell are decided.
        return int(np.trunc(v / length / np.float32(1 / grid)))

    first = max(cell(centre - half), 0, cell(centre) - 1)
    last = min(cell(centre + half), grid - 1, cell(centre) + 1)
    return slice(first, max(last + 1, first))


def _reduced(mask, scale, size):
    height, width = (int(n * scale + 0.5) for n in mask.shape)
    small = cv2.resize(mask.astype("uint8"), (max(width, 1), max(height, 1)), interpolation=cv2.INTER_LINEAR)
    found = np.zeros(size, "uint8")
    height, width = min(height, size[0]), min(width, size[1])
    found[:height, :width] = small[:height, :width]
    return found
