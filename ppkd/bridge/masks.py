"""Masks of annotations: which can be used, and run lengths as outlines, which is all that Mask R-CNN is trained on."""

import cv2
import numpy as np


def is_sound(mask, height, width):
    """Whether a ``segmentation`` is polygons, or run lengths of an image of this size.

    pycocotools takes packed run lengths as they are, and writes beyond its memory where they are too long.
    """
    if isinstance(mask, dict):
        counts = mask.get("counts")
        counts = unpacked(counts) if isinstance(counts, str) else counts
        whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
        return whole and mask.get("size") == [height, width] and sum(counts) == height * width
    if not isinstance(mask, list) or not mask:
        return False
    return all(type(value) in (int, float) and abs(value) < 1e9 for part in mask for value in part)


def has_area(polygon, height, width):
    """Whether a polygon, ``[x1, y1, x2, y2, ...]``, is more than a line, and in an image of this size."""
    xs, ys = polygon[::2], polygon[1::2]
    return max(min(xs), 0) < min(max(xs), width) and max(min(ys), 0) < min(max(ys), height)


def unpacked(text):
    """Run lengths of the text that COCO packs them into, or None if it is none.

    Each is written in groups of five bits, the lowest first, with 32 for "one more follows" and 48 on top; from the
    fourth on it is the difference to the last but one (``rleFrString`` of COCO's API).
    """
    counts, value, shift = [], 0, 0
    for sign in text:
        group = ord(sign) - 48
        if not 0 <= group < 64 or shift > 50:
            return None
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def outlines(runs):
    """Polygons around the pixels of run lengths, as `is_sound` lets them through; holes are filled.

    Args:
        runs: ``{"size": [height, width], "counts": list or text}``.

    Returns:
        ``[[x1, y1, x2, y2, ...], ...]`` along the edges of the pixels; empty if there is none.
    """
    height, width = runs["size"]
    counts = unpacked(runs["counts"]) if isinstance(runs["counts"], str) else runs["counts"]
    values = np.zeros(len(counts), "uint8")
    values[1::2] = 1
    mask = np.repeat(values, counts).reshape(width, height).T
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return []
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # the rest of a photograph takes most of the time
    # Each pixel as two by two, of which a contour's corners are then in one: the left and upper one of an object's left
    # and upper edge, the right and lower one of the others.
    twice = np.ascontiguousarray(mask.repeat(2, axis=0).repeat(2, axis=1))
    found, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    origin = columns[0], rows[0]
    return [((part + part % 2) / 2 + origin).reshape(-1).tolist() for part in found if len(part) > 2]
