"""What another detector finds, of whatever family, as further targets of the student's own positives.

GIoU: Rezatofighi et al., CVPR 2019 (arXiv 1902.09630). Scores as soft targets: Li et al., "Generalized Focal Loss",
NeurIPS 2020 (arXiv 2006.04388).
"""

import paddle
from paddle import nn

from .boxes import cell_points, giou_loss
from .common import frozen, full_precision, up
from .focal import quality_focal
from .ranks import averaged

_EPS = 1e-10


class FoundBoxesLoss(nn.Layer):
    """Compare the student's predictions at its positives with the boxes that a teacher has found.

    A positive is a prediction that the student's own loss has assigned an object. Of the teacher's boxes of this
    object's class the one that overlaps the object most is taken, if their IoU is at least ``least_iou``. With w the
    positive's assigned scores, s that box's score, and W the sum of w over all positives, found or not:

        ``giou = weight_giou / W * sum w * s * (1 - GIoU(student's box, teacher's box))``
        ``cls = weight_cls / W * sum w * |sigma(x) - s|^beta * BCE(sigma(x), s)``, x the logit of the object's class

    Where the teacher finds nothing there is no term. Under several ranks W is an average over the ranks.

    .. code-block:: yaml

        student: ["head.cls[*]", "head.ltrb[*]"]
        teacher: found
        loss: {name: found_boxes}
    """

    all_levels = True
    compares = ("class logits", "distances of edges")
    # The teacher's side are boxes (N, M, 6), the same for all levels of the student's.
    takes_boxes = True

    def __init__(self, weight_cls=1.0, weight_giou=2.5, least_iou=0.5, beta=2.0):
        super().__init__()
        self.weight_cls, self.weight_giou, self.least_iou, self.beta = weight_cls, weight_giou, least_iou, beta

    @full_precision
    def forward(self, student, teacher, assignment, strides, cell_offset):
        """The weighted parts.

        Args:
            student: pair of lists, one entry a level: class logits (N, K, H, W), and distances left, top, right, bottom
                in strides (N, 4, H, W).
            teacher: list of the same (N, M, 6): class, score, and corners in pixels of the network input; class -1
                where there are fewer boxes.
            assignment: `context.Assignment` of the student's loss.
            strides: of the levels.
            cell_offset: see `boxes.cell_points`.

        Returns:
            Dict of ``giou`` and ``cls``.

        Raises:
            ValueError: sources of another shape.
        """
        found = frozen(teacher[0])
        _check(student, found)
        classes, edges = map(_rows, student)
        kind, (count, size) = classes.dtype, classes.shape[1:]
        found = found.astype(kind)
        weight = (assignment.scores.astype(kind).sum(axis=-1) * assignment.positive.astype(kind)).flatten()
        divisor = averaged(weight.sum()).clip(min=_EPS)
        places = paddle.nonzero(assignment.positive.flatten()).flatten()
        nothing = (classes.sum() + edges.sum()) * 0.0
        if not places.shape[0]:
            return {"giou": nothing, "cls": nothing}
        labels = paddle.gather(assignment.labels.flatten(), places).astype("int64")
        truth = paddle.gather(assignment.boxes.astype(kind).reshape([-1, 4]), places)
        best, overlap = _nearest(truth, labels, paddle.gather(found, places // count))
        score = best[:, 1]
        weight = paddle.gather(weight, places) * (overlap >= self.least_iou).astype(kind) / divisor
        cells = (x.astype(kind) for x in _cells(student[0], strides, cell_offset))
        points, stride = (paddle.gather(x, places % count) for x in cells)
        wanted = paddle.concat([points - best[:, 2:4], best[:, 4:] - points], axis=1) / stride
        giou = giou_loss(paddle.gather(edges.reshape([-1, 4]), places), wanted)
        logits = paddle.gather(classes.flatten(), places * size + labels)
        return {
            "giou": self.weight_giou * paddle.dot(giou, weight * score) + nothing,
            "cls": self.weight_cls * paddle.dot(quality_focal(logits, score, self.beta), weight) + nothing,
        }


def _rows(levels):
    """Maps (N, C, H, W) of all levels as (N, A, C)."""
    return paddle.concat([up(x).flatten(2) for x in levels], axis=2).transpose([0, 2, 1])


def _nearest(truth, labels, found):
    """Of each object (P, 4) of a class (P,) the box of its class (P, M, 6) that overlaps it most, and their IoU."""
    low = paddle.maximum(truth[:, :2].unsqueeze(1), found[:, :, 2:4])
    high = paddle.minimum(truth[:, 2:].unsqueeze(1), found[:, :, 4:])
    both = _area(low, high)
    union = _area(truth[:, :2], truth[:, 2:]).unsqueeze(1) + _area(found[:, :, 2:4], found[:, :, 4:]) - both
    same = (found[:, :, 0].astype("int64") == labels.unsqueeze(1)).astype(found.dtype)
    overlap = both / union.clip(min=_EPS) * same
    number = overlap.argmax(axis=1)
    flat = number + paddle.arange(found.shape[0]) * found.shape[1]
    return paddle.gather(found.reshape([-1, 6]), flat), overlap.max(axis=1)


def _area(low, high):
    sides = (high - low).clip(min=0)
    return sides[..., 0] * sides[..., 1]


def _cells(maps, strides, cell_offset):
    """The point (A, 2) and the stride (A, 1) of every cell of all levels."""
    sizes = [tuple(x.shape[2:]) for x in maps]
    points = paddle.concat(cell_points(sizes, strides, cell_offset))
    counts = [height * width for height, width in sizes]
    return points, paddle.concat([paddle.full([n, 1], s, "float32") for n, s in zip(counts, strides)])


def _check(student, found):
    if not isinstance(student, tuple) or len(student) != 2 or student[1][0].shape[1] != 4:
        raise ValueError('found_boxes: the student has two sources, ["head.cls[*]", "head.ltrb[*]"], of one anchor')
    if len(found.shape) != 3 or found.shape[2] != 6:
        raise ValueError(
            f"found_boxes: the teacher's source is `found`, boxes (N, M, 6) of a detector given as ONNX with "
            f"detections; here is {list(found.shape)}"
        )
