"""Draws one picture of the shapes data set: cluttered background, distractors, objects, noise.

Everything random comes from the one generator handed in, so a picture is a function of its seed.
Lengths are pixels; colours are RGB, 0 to 255. The public entrance is `ppkd.data.shapes`.
"""

from __future__ import annotations

import cv2
import numpy as np

CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")

EMPTY_SHARE = 0.065  # of the pictures have no object
MAX_HIDDEN = 0.7  # objects hidden (or outside the picture) beyond this share are taken out
MIN_SIDE = 5  # px: what is visible of an object must be at least this wide and high
_SUB = 4  # outlines are filled on a grid this many times finer, then averaged
# share and range (px) of sqrt(box width * box height): COCO's small, medium and large
_SIZES = ((0.40, 9.0, 31.0), (0.48, 33.0, 94.0), (0.12, 98.0, 118.0))


def draw(rng: np.random.Generator, size: int):
    """One picture and its objects.

    Args:
        rng: the only source of randomness.
        size: width and height of the picture in pixels.

    Returns:
        image: uint8 array [size, size, 3], RGB.
        objects: list of (class index 0..5, x, y, width, height), the box of the visible part in
            whole pixels, back to front.
        outlines: for each object the polygons of its visible part, lists x, y, x, y, ... in pixels
            of at least three points; holes are filled.
    """
    canvas = _background(rng, size)
    for _ in range(rng.integers(2, 7)):
        _paint(rng, canvas, _distractor(rng, size), low_contrast=rng.random() < 0.3)
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, 9))
    layers = _visible(_layout(rng, size, count), size)
    objects, outlines = [], []
    for kind, mask, box, visible in layers:
        _paint(rng, canvas, mask, low_contrast=rng.random() < 0.12)
        objects.append((kind, *box))
        outlines.append(_polygons(visible, box))
    return _camera(rng, canvas), objects, outlines


# ---- outlines ---------------------------------------------------------------------------------


def _circle(radius, points=48):
    angle = np.arange(points) * (2 * np.pi / points)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _outline(kind: str, rng) -> list[np.ndarray]:
    """Contours [points, 2] of a class around the origin; a second contour is a hole."""
    if kind == "disc":
        return [_circle(1.0)]
    if kind == "ring":
        return [_circle(1.0), _circle(rng.uniform(0.5, 0.64))]
    if kind == "square":
        return [_circle(1.0, 4)]
    if kind == "triangle":
        return [_circle(1.0, 3)]
    if kind == "star":
        star = _circle(1.0, 10)
        star[1::2] *= rng.uniform(0.38, 0.48)
        return [star]
    arm = rng.uniform(0.26, 0.38)  # cross: half the width of an arm
    corner = np.array([[1, arm], [arm, arm], [arm, 1], [-arm, 1], [-arm, arm], [-1, arm]])
    return [np.concatenate([corner, -corner])]


def _distractor_outline(rng) -> list[np.ndarray]:
    """Something that is none of the classes: bar, long ellipse, half disc, chevron, L, shard."""
    pick = rng.integers(6)
    if pick == 0:
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1.0, rng.uniform(0.08, 0.3)]]
    if pick == 1:
        return [_circle(1.0) * [1.0, rng.uniform(0.2, 0.42)]]
    if pick == 2:
        return [_circle(1.0)[:25]]
    if pick == 3:
        return [np.array([[-1, -0.7], [0, 0.1], [1, -0.7], [1, -0.1], [0, 0.8], [-1, -0.1]])]
    if pick == 4:
        arm = rng.uniform(0.25, 0.5)
        return [np.array([[0, 0], [1.6, 0], [1.6, arm], [arm, arm], [arm, 1.2], [0, 1.2]]) - 0.4]
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 9)))
    shard = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.35, 1, (len(angle), 1))
    return [shard * [1.0, rng.uniform(0.5, 0.8)]]


def _place(rng, contours, extent, stretch):
    """Stretched, turned and scaled so that sqrt(width * height) of the box is `extent` px."""
    factor = rng.uniform(1 / stretch, stretch)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]])
    # turned twice, so that the stretch is not always along an axis of the shape
    first = rng.uniform(0, np.pi)
    tilt = np.array([[np.cos(first), np.sin(first)], [-np.sin(first), np.cos(first)]])
    contours = [(c @ tilt * [factor, 1 / factor]) @ matrix for c in contours]
    low, high = contours[0].min(0), contours[0].max(0)
    scale = extent / np.sqrt(np.prod(high - low))
    return [(c - (low + high) / 2) * scale for c in contours]


def _fill(contours, centre, size):
    """Coverage, float32 [h, w] in 0..1, and its corner (x, y); None if outside the picture.

    Pixel (i, j) covers [j, j + 1) x [i, i + 1), as in COCO boxes.
    """
    shifted = [c + centre for c in contours]
    low = np.maximum(np.floor(shifted[0].min(0)).astype(int), 0)
    high = np.minimum(np.ceil(shifted[0].max(0)).astype(int), size)
    if (high <= low).any():
        return None
    fine = np.zeros(tuple((high - low)[::-1] * _SUB), np.uint8)
    # cv2's pixel centres are whole numbers, hence the half; 4 bits below the point
    points = [np.round(((c - low) * _SUB - 0.5) * 16).astype(np.int32) for c in shifted]
    cv2.fillPoly(fine, points, 255, shift=4)
    mask = cv2.resize(fine, tuple((high - low).tolist()), interpolation=cv2.INTER_AREA)
    return mask.astype(np.float32) / 255, (int(low[0]), int(low[1]))


# ---- layout and occlusion ---------------------------------------------------------------------


def _extent(rng, size):
    """sqrt(box area) in px; pictures too small for large objects get fewer size groups."""
    groups = [(p, a, min(b, 0.53 * size)) for p, a, b in _SIZES if a < 0.5 * size]
    share = np.cumsum([p for p, _, _ in groups])
    _, low, high = groups[int(np.searchsorted(share, rng.random() * share[-1], side="right"))]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _layout(rng, size, count):
    """Up to `count` objects (class, coverage, corner, full area in px), back to front."""
    gap = 0.5 if rng.random() < 0.45 else 0.95  # some pictures are crowded
    taken, found = [], []
    for _ in range(count):
        kind = int(rng.integers(len(CLASSES)))
        extent = _extent(rng, size)
        contours = _place(rng, _outline(CLASSES[kind], rng), extent, 1.12)
        for _ in range(10):
            centre = rng.uniform(0.36 * extent, size - 0.36 * extent, 2)
            if all(np.hypot(*(centre - c)) > gap * (extent + e) / 2 for c, e in taken):
                break
        else:
            continue
        taken.append((centre, extent))
        area = abs(cv2.contourArea(contours[0].astype(np.float32)))
        area -= sum(abs(cv2.contourArea(c.astype(np.float32))) for c in contours[1:])
        found.append((kind, _fill(contours, centre, size), area))
    return found


def _polygons(visible, box):
    """Outlines of a mask [size, size] of what is seen; of a mask of slivers only, its box."""
    found, _ = cv2.findContours(visible.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # contours run through pixel centres
    polygons = [(c.reshape(-1).astype(float) + 0.5).tolist() for c in found if len(c) >= 3]
    x, y, w, h = (float(v) for v in box)
    return polygons or [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _visible(layers, size):
    """(class, mask, visible box, visible pixels) without the objects that are hidden beyond MAX_HIDDEN.

    A hidden object is not drawn either: pixels without a label would only teach mistakes. Taking
    one out may show more of another, so boxes are measured again until all can stay.
    """
    while True:
        owner = np.full((size, size), -1, np.int32)
        for i, (_, (mask, (x, y)), _) in enumerate(layers):
            h, w = mask.shape
            owner[y : y + h, x : x + w][mask >= 0.5] = i
        kept, result = [], []
        for i, (kind, mask, area) in enumerate(layers):
            rows, cols = np.nonzero(owner == i)
            if len(rows) < (1 - MAX_HIDDEN) * area or not len(rows):
                continue
            x, y = int(cols.min()), int(rows.min())
            w, h = int(cols.max()) + 1 - x, int(rows.max()) + 1 - y
            if min(w, h) >= MIN_SIDE:
                kept.append(layers[i])
                result.append((kind, mask, (x, y, w, h), owner == i))
        if len(kept) == len(layers):
            return result
        layers = kept


# ---- colours ----------------------------------------------------------------------------------


def _noise(rng, size, cells):
    """Smooth noise, float32 [size, size, 3], about unit variance, `cells` bumps a side."""
    coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def _background(rng, size):
    turn = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    ramp = (np.cos(turn) * axis[None] + np.sin(turn) * axis[:, None]) + 0.5
    first, second = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    second = first + (second - first) * np.float32(rng.uniform(0.1, 0.7))
    canvas = first + ramp[..., None] * (second - first)
    canvas += _noise(rng, size, int(rng.integers(3, 8))) * np.float32(rng.uniform(6, 24))
    canvas += _noise(rng, size, int(rng.integers(16, 48))) * np.float32(rng.uniform(2, 11))
    for _ in range(rng.integers(1, 6)):  # soft blobs
        blob = np.zeros((size, size), np.float32)
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        axes = tuple(int(v) for v in rng.integers(size // 20, size // 5, 2))
        cv2.ellipse(blob, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        blob = cv2.blur(blob, (13, 13))[..., None]
        canvas += blob * rng.uniform(-45, 45, 3).astype(np.float32)
    for _ in range(rng.integers(2, 12)):
        a, b = (tuple(int(v) for v in p) for p in rng.integers(-size // 4, size * 5 // 4, (2, 2)))
        colour = tuple(float(v) for v in rng.uniform(0, 255, 3))
        cv2.line(canvas, a, b, colour, int(rng.integers(1, 3)), cv2.LINE_AA)
    blur = rng.uniform(0, 2.2)
    return cv2.GaussianBlur(canvas, (0, 0), blur) if blur > 0.3 else canvas


def _distractor(rng, size):
    extent = np.exp(rng.uniform(np.log(10), np.log(0.4 * size)))
    contours = _place(rng, _distractor_outline(rng), extent, 1.05)
    return _fill(contours, rng.uniform(0, size, 2), size)


def _colour(rng, ground, low_contrast):
    """A colour that stands out from `ground`, by little or by much; unrelated to the class."""
    distance = rng.uniform(38, 60) if low_contrast else rng.uniform(85, 120)
    for _ in range(20):
        if low_contrast:
            step = rng.standard_normal(3)
            colour = ground + step * (distance / np.linalg.norm(step))
        else:
            colour = rng.uniform(5, 250, 3)
        colour = np.clip(colour, 0, 255)
        if np.linalg.norm(colour - ground) >= 0.9 * distance:
            return colour
    return np.where(ground > 127, ground - 60, ground + 60)


def _paint(rng, canvas, patch, low_contrast):
    """Fills a mask with a colour, a shading across it and a little grain."""
    if patch is None:
        return
    mask, (x, y) = patch
    h, w = mask.shape
    region = canvas[y : y + h, x : x + w]
    weight = mask[..., None]
    ground = (region * weight).sum((0, 1)) / max(float(mask.sum()), 1e-3)
    colour = _colour(rng, ground, low_contrast).astype(np.float32)
    slope = rng.uniform(-18, 18, 2).astype(np.float32)
    shade = np.linspace(-1, 1, w, dtype=np.float32)[None] * slope[0]
    shade = shade + np.linspace(-1, 1, h, dtype=np.float32)[:, None] * slope[1]
    if rng.random() < 0.4:
        shade = shade + rng.standard_normal((h, w), dtype=np.float32) * np.float32(6)
    region += weight * (colour + shade[..., None] - region)


def _camera(rng, canvas):
    """Blur, light, grain and rounding, as a camera would."""
    blur = rng.uniform(0, 0.9)
    if blur > 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur)
    canvas = (canvas - 128) * np.float32(rng.uniform(0.8, 1.1)) + 128
    canvas = canvas + np.float32(rng.uniform(-15, 15))
    grain = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas += grain * np.float32(rng.uniform(1.5, 8))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
