"""Which point learns which box, in RepPoints' two stages (arXiv 1904.11490, section 4)."""

import paddle


def assign_points(points, levels, valid, boxes, real, scale=4.0, number=1):
    """The first stage: each box takes the nearest points of the level for its size.

    A point that several boxes want is that of the box whose middle is nearest, measured in the box's own sides.

    Args:
        points: (P, 2) x y in pixels.
        levels: (P,) binary logarithms of the points' strides.
        valid: (P,) bool, the points that take part.
        boxes: (G, 4), padded.
        real: (G,) bool, False for padding.
        scale: side of a box of level 0, in pixels.
        number: of points that a box takes.

    Returns:
        (P,) int64: 0 for no box, else 1 + its index.
    """
    if boxes.shape[0] == 0:
        return paddle.zeros([points.shape[0]], "int64")
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(min=1e-6)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    there = levels.astype("float32")
    inf = paddle.full_like(there, float("inf"))
    least, most = paddle.where(valid, there, inf).min(), paddle.where(valid, there, -inf).max()
    wanted = paddle.trunc((sides / scale).log2().sum(axis=1) / 2)
    wanted = paddle.minimum(paddle.maximum(wanted, least), most)
    usable = (there == wanted.unsqueeze(1)) & valid & real.unsqueeze(1)
    gaps = (points - middles.unsqueeze(1)) / sides.unsqueeze(1)
    distance = gaps.square().sum(axis=2).sqrt()
    distance = paddle.where(usable, distance, paddle.full_like(distance, float("inf")))
    nearest, order = paddle.topk(distance, min(number, points.shape[0]), axis=1, largest=False)
    # What was not usable stays infinite, whether it was chosen or not.
    cost = paddle.put_along_axis(paddle.full_like(distance, float("inf")), order, nearest, 1)
    return paddle.where(cost.min(axis=0) < float("inf"), cost.argmin(axis=0) + 1, paddle.zeros_like(levels))


def assign_boxes(candidates, valid, boxes, real, positive=0.5, negative=0.4, least=0.0):
    """The second stage: by the IoU with the boxes that the first stage's points mean.

    After that every box, in order, takes all candidates that overlap with it as much as the best one does, be that as
    little as it is: a box that nothing overlaps takes all candidates that do not overlap with it.

    Args:
        candidates: (P, 4) in pixels.
        valid, boxes, real: as of `assign_points`.
        positive, negative: a candidate with a best IoU from the first on has that box, one below the second has none.
        least: IoU from which on the best candidate is taken in any case.

    Returns:
        (P,) int64: -1 for a candidate that is ignored, 0 for none, else 1 + the box's index; and (P,) its best IoU.
    """
    if boxes.shape[0] == 0:
        none = paddle.zeros([candidates.shape[0]])
        return none.astype("int64"), none
    ious = _ious(boxes, candidates)
    ious = paddle.where(valid & real.unsqueeze(1), ious, paddle.full_like(ious, -1.0))
    best, which = ious.max(axis=0), ious.argmax(axis=0) + 1
    none = paddle.zeros_like(which)
    found = paddle.where(best >= positive, which, paddle.where(best < negative, none, none - 1))
    highest = ious.max(axis=1, keepdim=True)
    alike = ((ious == highest) & (highest >= least) & real.unsqueeze(1)).astype("int64")
    last = alike * (paddle.arange(boxes.shape[0]) + 1).unsqueeze(1)
    return paddle.where(last.max(axis=0) > 0, last.max(axis=0), found), best.clip(min=0.0)


def _ious(a, b):
    """(G, P) IoU of corners (G, 4) and (P, 4)."""
    a, b = a.unsqueeze(1), b.unsqueeze(0)
    sides = (paddle.minimum(a[..., 2:], b[..., 2:]) - paddle.maximum(a[..., :2], b[..., :2])).clip(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    area_a, area_b = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b))
    return overlap / (area_a + area_b - overlap).clip(min=1e-6)
