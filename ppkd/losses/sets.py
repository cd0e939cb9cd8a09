"""Sets of predictions of DETR and its kin: what compares two whose order is known."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from .boxes import corner_giou_loss
from .common import check_choice, frozen, up
from .focal import quality_focal

# Of areas in shares of the image: far below a pixel.
EPS = 1e-9


class SetLoss(nn.Layer):
    """Compares classes by the quality focal loss (arXiv 2006.04388) or the binary Kullback-Leibler divergence, and
    boxes by L1 and GIoU, of each layer of two decoders.

    Args:
        cls: ``qfl`` or ``kl``.
        beta: exponent of ``qfl``.
        weight_cls, weight_l1, weight_giou: factors on the three parts.
    """

    all_levels = True
    compares = ("class logits", "boxes")
    takes_tokens = True

    def __init__(self, cls, beta, weight_cls, weight_l1, weight_giou):
        super().__init__()
        check_choice(self.called, "cls", cls, ("qfl", "kl"))
        self.cls, self.beta = cls, beta
        self.weights = {"cls": weight_cls, "l1": weight_l1, "giou": weight_giou}
        for name, value in {"beta": beta, **{f"weight_{k}": x for k, x in self.weights.items()}}.items():
            check_from_zero(self.called, name, value)

    def stacked(self, student, teacher):
        """Classes and boxes of the student and of the teacher, each (layers * N, Q, C or 4).

        Args:
            student, teacher: each a pair of lists, one entry a layer: binary class logits (N, Q, C), and boxes
                (N, Q, 4) as centre x y, width, height in shares of the image. No gradient reaches the teacher.

        Raises:
            ValueError: sources of another shape.
        """
        self._check(student, teacher)
        ours = [paddle.stack([up(x) for x in each]).flatten(0, 1) for each in student]
        theirs = [paddle.stack([frozen(x) for x in each]).flatten(0, 1) for each in teacher]
        return (*ours, *theirs)

    def compared(self, logits, boxes, wanted, target, images, importance=None):
        """The three parts, each the mean over layers of a sum over predictions, divided by what the teacher sees.

        With w the teacher's highest score of a prediction the divisor is the sum of w of a layer, at least 1 an image.

        Args:
            logits, wanted: of student and teacher (layers * N, Q, C), in the same order.
            boxes, target: theirs (layers * N, Q, 4).
            images: N.
            importance: whether w is on the classes as well, as it is on the boxes.

        Returns:
            Dict of ``cls``, ``l1`` and ``giou``.
        """
        scores = F.sigmoid(wanted)
        weight = scores.max(axis=-1)
        layers = weight.shape[0] // images
        # A layer's own divisor: the teacher may see more in one than in another.
        divisor = weight.reshape([layers, -1]).sum(axis=1).clip(min=float(images))
        classes = self._classes(logits, wanted, scores).sum(axis=-1)
        parts = {
            "cls": classes * weight if importance else classes,
            "l1": (boxes - target).abs().sum(axis=-1) * weight,
            "giou": corner_giou_loss(corners(boxes), corners(target), EPS) * weight,
        }
        return {k: ((x.reshape([layers, -1]).sum(axis=1) / divisor).mean() * self.weights[k]) for k, x in parts.items()}

    def _classes(self, logits, wanted, scores):
        if self.cls == "qfl":
            return quality_focal(logits, scores, self.beta)
        gap = wanted - logits
        return scores * gap + F.softplus(logits) - F.softplus(wanted)

    def _check(self, student, teacher):
        for sides in (student, teacher):
            if not isinstance(sides, (tuple, list)) or len(sides) != 2:
                raise ValueError(f'{self.called} compares two sources: ["decoder.cls[*]", "decoder.box[*]"]')
        for ours, theirs in ((o, t) for pair in zip(student, teacher) for o, t in zip(*pair)):
            if len(ours.shape) != 3 or len(theirs.shape) != 3 or ours.shape[2] != theirs.shape[2]:
                raise ValueError(
                    f"{self.called}: student {list(ours.shape)} and teacher {list(theirs.shape)} must have the same "
                    "shape but for their queries (N, queries, classes or 4): sources are decoder.cls[*] and "
                    "decoder.box[*], and both models need the same classes"
                )


def corners(boxes):
    """Centre and size (..., 4) as corners x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return paddle.concat([centre - half, centre + half], axis=-1)


def chosen(x, index):
    """Rows `index` (B, K) of each of (B, Q, C)."""
    batch, queries, channels = x.shape
    flat = (index + paddle.arange(batch).unsqueeze(1) * queries).flatten()
    return paddle.gather(x.reshape([-1, channels]), flat).reshape([batch, -1, channels])


def best(wanted, count):
    """(B, count) numbers of the predictions of highest score among class logits (B, Q, C)."""
    return paddle.topk(wanted.max(axis=-1), count, axis=1)[1]


def check_from_zero(name, option, value):
    """Raise ``ValueError`` if a number is below 0, where a loss would drive two sides apart."""
    if value < 0:
        raise ValueError(f"{name}: {option} is {value!r}, expected a number from 0")


def check_count(name, option, value, least):
    """Raise ``ValueError`` unless `value` is a whole number from `least`, or None for all."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{name}: {option} is {value!r}, expected a number of queries from {least}, or null for all")
