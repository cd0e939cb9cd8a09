"""From a file's outputs to boxes, scores and classes, by `layouts`."""

import numpy as np

from ppkd.errors import UserError
from ppkd.models.onnx.layouts import OUTPUTS
from ppkd.terminal.log import logger

# Before suppression no more boxes are looked at.
_BEFORE = 2000
# Numbers that are looked at together: what a file's outputs say is not copied as a whole.
_PIECE = 1 << 18


class Decoder:
    """Reads detections out of outputs.

    Args:
        options: of `layouts.read_layout`.
        outputs: names of the file's outputs.
        shapes: theirs, None for a side that is not fixed.
        classes: number of the file's classes.
        where: file, for messages.

    Attributes:
        wanted: names of the outputs that it reads.

    Raises:
        UserError: there are no such outputs, or they are of another shape.
    """

    def __init__(self, options, outputs, shapes, classes, where):
        self._options, self._classes, self._where, self._told = options, classes, where, set()
        needed, more = OUTPUTS[options["layout"]]
        self._of = {role: self._find(role, outputs, shapes, len(needed) == 1) for role in needed}
        self._of |= {role: self._find(role, outputs, shapes, False) for role in more if options[role] is not None}
        self.wanted = list(self._of.values())

    def _find(self, role, outputs, shapes, alone):
        given = self._options[role]
        name = given if given is not None else role if role in outputs else outputs[0] if alone else None
        if name not in outputs:
            told = ", ".join(f"{name} {shape}".replace("None", "?") for name, shape in zip(outputs, shapes))
            asked = f"there is no output {given!r}" if given is not None else f"name the output that has {role}"
            raise UserError(f"{self._where}: detections.{role}: {asked}; it has {told}")
        return name

    def found(self, values, count, size):
        """What is found on the images of one run.

        Args:
            values: of `wanted`, in that order.
            count: number of images; the file may have been given more.
            size: height and width of these images.

        Returns:
            ``(classes (n,) int64, scores (n,), corners (n, 4) in pixels of these images)`` of each, the best first.

        Raises:
            UserError: outputs of another shape, values that are not finite, scores beyond 0 to 1, unknown classes.
        """
        values = dict(zip(self._of, values))
        read = getattr(self, f"_{self._options['layout']}")
        images = read(values, count)
        if len(images) < count:
            self._refuse(f"its outputs are of {len(images)} images, of {count} that it was given")
        return [self._finished(each, size) for each in images[:count]]

    def _refuse(self, text):
        raise UserError(f"{self._where}: {text} (detections: {self._options['layout']})")

    def _split(self, values, count):
        boxes, scores, labels = (values[role] for role in ("boxes", "scores", "labels"))
        if boxes.ndim == 2:
            boxes = boxes[None]
        if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.size != boxes.size // 4 or labels.size != scores.size:
            shapes = ", ".join(f"{role} {list(value.shape)}" for role, value in values.items())
            self._refuse(f"(N, boxes, 4), (N, boxes) and (N, boxes) are wanted, found {shapes}")
        scores, labels = (x.reshape(boxes.shape[:2]) for x in (scores, labels))
        numbers = self._numbers(values, [boxes.shape[1]] * len(boxes))
        return [_pieces(b[:n], s[:n], c[:n]) for b, s, c, n in zip(boxes, scores, labels, numbers)]

    def _rows(self, values, count):
        rows, columns = values["rows"], self._options["columns"]
        if rows.ndim not in (2, 3) or rows.shape[-1] != len(columns):
            self._refuse(f"rows of {len(columns)} columns ({', '.join(columns)}) are wanted, found {list(rows.shape)}")
        if rows.ndim == 3:
            images = list(rows)
        elif "image" in columns:
            of = rows[:, columns.index("image")].astype("int64")
            images = [rows[of == number] for number in range(count)]
        elif "count" in values:
            images = np.split(rows, np.cumsum(self._numbers(values, None, len(rows))))[:-1]
        elif count == 1:
            images = [rows]
        else:
            self._refuse("rows of several images: name the output that counts them (count), or the column image")
        if rows.ndim == 3:
            numbers = self._numbers(values, [rows.shape[1]] * len(rows))
            images = [each[:n] for each, n in zip(images, numbers)]
        places = [columns.index(name) for name in ("x1", "y1", "x2", "y2")]
        score, label = columns.index("score"), columns.index("label")
        return [((r[:, places], r[:, score], r[:, label]) for (r,) in _pieces(rows)) for rows in images]

    def _numbers(self, values, rows, total=None):
        """How many boxes each image has.

        Args:
            rows: how many it has room for in each image; None if in all `total`.
        """
        if "count" not in values:
            return rows
        numbers = values["count"].reshape(-1)
        good = np.isfinite(numbers).all() and (numbers >= 0).all()
        if rows is None:
            good, room = good and numbers.sum(dtype="float64") <= total, total
        else:
            good, room = good and len(numbers) == len(rows) and (numbers <= rows).all(), max(rows, default=0)
        if not good:
            told = f"one number of boxes an image is wanted, of {room} that there are"
            self._refuse(f"count is {numbers.tolist()[:8]}: {told}")
        return numbers.astype("int64")

    def _yolo(self, values, count):
        output, options = values["output"], self._options
        if options["channels"] == "first" and output.ndim == 3:
            output = output.transpose(0, 2, 1)
        first = 4 + options["objectness"]
        if output.ndim != 3 or output.shape[2] != first + self._classes:
            what = f"4 of the box{', 1 of objectness' if options['objectness'] else ''}, {self._classes} classes"
            self._refuse(f"{first + self._classes} channels ({what}) are wanted, channels {options['channels']}, found "
                         f"{list(values['output'].shape)}")  # fmt: skip
        return [self._of_classes(*each) for each in zip(output[:, :, :4], output[:, :, 4:])]

    def _detr(self, values, count):
        boxes, logits = values["boxes"], values["logits"]
        background = self._options["activation"] == "softmax"
        shape = (*boxes.shape[:2], self._classes + background)
        if boxes.ndim != 3 or boxes.shape[2] != 4 or logits.shape != shape:
            self._refuse(f"boxes (N, Q, 4) and logits (N, Q, {shape[-1]}: {self._classes} classes"
                         f"{' and the background' if background else ''}) are wanted, found {list(boxes.shape)} and "
                         f"{list(logits.shape)}")  # fmt: skip
        return [self._of_classes(*each) for each in zip(boxes, logits)]

    def _activated(self, x):
        kind = self._options["activation"]
        if kind == "sigmoid":
            return 1 / (1 + np.exp(-x.clip(-60, 60)))
        if kind == "softmax":
            x = np.exp(x - x.max(axis=-1, keepdims=True))
            return x / x.sum(axis=-1, keepdims=True)
        return x

    def _of_classes(self, boxes, raw):
        """Every class of every box on its own, as detectors are evaluated."""
        for some, values in _pieces(boxes, raw):
            scores = self._activated(values)
            if self._options.get("objectness"):
                scores = scores[:, :1] * scores[:, 1:]
            scores = scores[:, : self._classes]
            self._check_scores(scores)
            box, label = np.nonzero(scores >= max(self._options["score"], 1e-6))
            yield some[box], scores[box, label], label

    def _check_scores(self, scores):
        if scores.size and not (np.isfinite(scores).all() and scores.min() > -1e-3 and scores.max() < 1 + 1e-3):
            low, high = float(scores.min()), float(scores.max())
            self._refuse(f"scores from 0 to 1 are wanted, found {low:.3g} to {high:.3g}: activation: sigmoid?")

    def _best(self, boxes, scores, labels):
        """Of rows that are checked the best, the best first."""
        if not np.isfinite(labels).all():
            self._refuse("labels that are not finite")
        labels = labels.astype("int64")
        real = labels >= 0  # rows that are filled up
        boxes, scores, labels = boxes[real].astype("float32"), scores[real].astype("float32"), labels[real]
        self._check_scores(scores)
        if not np.isfinite(boxes).all():
            self._refuse("boxes that are not finite")
        if labels.size and labels.max() >= self._classes:
            self._refuse(f"it finds class {labels.max()}, and has names for {self._classes} (detections.names)")
        best = np.argsort(-scores, kind="stable")[:_BEFORE]
        best = best[scores[best] >= self._options["score"]]
        return boxes[best], scores[best], labels[best]

    def _finished(self, pieces, size):
        options = self._options
        found = [np.zeros([0, 4], "float32"), np.zeros(0, "float32"), np.zeros(0, "int64")]
        for piece in pieces:
            found = self._best(*(np.concatenate(both) for both in zip(found, self._best(*piece))))
        boxes, scores, labels = self._corners(found[0], size), *found[1:]
        if options["nms"] is not None and len(boxes):
            kept = _suppressed(boxes, labels, options["nms"])
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        most = options["most"]
        return labels[:most], scores[:most], boxes[:most]

    def _corners(self, boxes, size):
        self._check_unit(boxes)
        if self._options["unit"] == "fraction":
            boxes = boxes * np.tile(np.array(size[::-1], "float32"), 2)
        low, high = boxes[:, :2], boxes[:, 2:]
        if self._options["form"] == "cxcywh":
            low, high = low - high / 2, low + high / 2
        elif self._options["form"] == "xywh":
            high = low + high
        corners = np.concatenate([low, high], axis=1)
        return corners.clip(0, np.tile(np.array(size[::-1], "float32"), 2))

    def _check_unit(self, boxes):
        """Tell once where numbers look like those of the other unit."""
        unit = self._options["unit"]
        small = len(boxes) >= 5 and float(np.abs(boxes).max()) <= 2
        large = len(boxes) and float(np.abs(boxes).max()) > 8
        if (small if unit == "pixels" else large) and unit not in self._told:
            self._told.add(unit)
            other = "fraction" if unit == "pixels" else "pixels"
            logger().warning("%s: its boxes look like %s: is detections.unit %s?", self._where,
                             "fractions of the image" if small else "pixels", other)  # fmt: skip


def _pieces(*arrays):
    """The same rows of arrays, as many at once as `_PIECE` allows."""
    step = max(1, _PIECE // max(1, *(array[:1].size for array in arrays)))
    for i in range(0, len(arrays[0]), step):
        yield tuple(array[i : i + step] for array in arrays)


def _suppressed(boxes, labels, iou):
    """Numbers of the boxes, the best first, that no better one of their class overlaps by more than `iou`."""
    import paddle
    from paddle.vision.ops import nms

    # Apart from each other by class, so that all are suppressed at once.
    shift = labels.astype("float32")[:, None] * (float(boxes.max()) + 1)
    return nms(paddle.to_tensor((boxes + shift).astype("float32")), iou).numpy()
