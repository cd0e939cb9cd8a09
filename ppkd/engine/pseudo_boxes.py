"""A teacher's detections on images without labels, as boxes for the student's own loss."""

import contextlib

import numpy as np
import paddle
from paddle import nn

from ppkd.bridge.ground_truth import BOXES, CLASSES, FRAME
from ppkd.bridge.own_data import finds_boxes
from ppkd.bridge.sizes import follow_images
from ppkd.bridge.strong_view import STRONG
from ppkd.engine.soft_scores import assigners, counted_by_score
from ppkd.errors import UserError, nearest
from ppkd.recipe.pseudo_boxes import NAME
from ppkd.terminal.log import logger

# No score reaches it.
_NEVER = 2.0
# So many images without any box are no chance.
_MANY = 64
# Sides of a box in pixels of the network input, below which it is nothing that could be learned.
_LEAST_SIDE = 1.0


def check_names(given, names):
    """Raise a `UserError` if a class of ``distill.pseudo_boxes.threshold`` is none of `names`."""
    for name in given or ():
        if name not in names:
            where = f"distill.{NAME}.threshold"
            raise UserError(f"{where}: no class {name!r}{nearest(name, names)}; there are {', '.join(names)}")


class TeacherBoxes(nn.Layer):
    """Which of a teacher's detections are boxes, and how many there were so far.

    Args:
        spec: `pseudo_boxes.PseudoBoxes`.
        student: `detectors.Detector`.
        teachers: name -> `detectors.Detector`.
        beside: whether the run has images without labels.
        classes: numbers of classes that configs tell, the teachers' by name and the student's under None. Of those that
            are not among them layers are asked, which not all do: SSD's and DETR's count the background too.

    Attributes:
        spec: as given.
        teacher: the name of the one that detects.
        least: (K,) float32, the least score of each class; kept for resuming, and rank 0's are everybody's.
        counted: (3,) int64, of this rank: images, those of them with a box, boxes.
        targets: function that puts boxes into a batch, see `box_targets.BoxTargets`; set by who trains.

    Raises:
        UserError: there are no such images, there is no such teacher, or it is none that detects the student's classes.
    """

    of_rank = ("counted",)

    def __init__(self, spec, student, teachers, beside, classes=None):
        super().__init__()
        where, self.spec = f"distill.{NAME}", spec
        if not beside:
            raise UserError(f"{where}: the run has no images without labels; unlabelled: FOLDER gives them")
        self.teacher = spec.teacher or next(iter(teachers))
        if self.teacher not in teachers:
            raise UserError(
                f"{where}.from: there is no teacher {self.teacher!r}{nearest(self.teacher, teachers)}; there is "
                f"{', '.join(teachers)}"
            )
        model, told = teachers[self.teacher].model, classes or {}
        if not hasattr(model, "get_pred") or not finds_boxes(type(model).__name__):
            raise UserError(f"{where}.from: {type(model).__name__} ({self.teacher}) detects nothing: it has no boxes")
        classes = told.get(None) or _classes(student)
        theirs = told.get(self.teacher) or _classes(teachers[self.teacher])
        if classes is None or theirs != classes:
            raise UserError(
                f"{where}.from: {self.teacher} tells {theirs} classes and the student {classes}: its boxes need the "
                "same classes"
            )
        follow_images(model)
        given = spec.threshold if isinstance(spec.threshold, float) else _NEVER
        self.register_buffer("least", paddle.full([classes], given, "float32"))
        self.register_buffer("counted", paddle.zeros([3], "int64"))
        self.targets, self._told = None, False

    def begin(self, targets, names, thresholds=None):
        """Take what is known only where training begins.

        Args:
            targets: see `targets`.
            names: of the classes, or None where nobody has told them.
            thresholds: class -> least score, None for a class without boxes, of the classes for which `spec` gives
                none.

        Raises:
            UserError: a threshold of a class that there is not, or none for one that there is.
        """
        self.targets, given = targets, self.spec.threshold
        if isinstance(given, float):
            return
        where = f"distill.{NAME}.threshold"
        names = names or [str(number) for number in range(len(self.least))]
        check_names(given, names)
        scores = {**(thresholds or {}), **(given or {})}
        if thresholds is None and (lacking := [name for name in names if name not in scores]):
            raise UserError(f"{where}: no score for {', '.join(lacking)}, and none was found on the validation set")
        self.set_least([scores.get(name) for name in names])

    def set_least(self, scores):
        """Take other thresholds: one a class, None for a class without boxes."""
        values = [_NEVER if score is None else score for score in scores]
        with paddle.no_grad():
            paddle.assign(paddle.to_tensor(np.array(values, "float32")), self.least)

    def counts(self):
        """On this rank so far: images with a box of the teacher's, and its boxes."""
        seen, images, boxes = self.counted.tolist()
        if seen >= _MANY and not boxes and not self._told:
            self._told = True
            logger().warning(
                "images without labels: in %d of them %s found nothing that reaches the threshold of its class: lower "
                "distill.%s.threshold, or take other images", seen, self.teacher, NAME,
            )  # fmt: skip
        return {"boxed_images": images, "teacher_boxes": boxes}

    def factor(self, epoch):
        """What the schedule says; where it is 0, nothing is detected."""
        return self.spec.schedule.factor(epoch)

    def over(self, epoch):
        """Whether it is over from `epoch` on, for good."""
        return self.spec.schedule.over(epoch)

    def boxed(self, batch, detector, prepare, student):
        """The batch with the teacher's boxes as its ground truth.

        The teacher looks at the images as the reader has made them, the student at their `strong_view.STRONG` view.
        Where `spec` is soft, a box counts by its score: in targets that tell how sure they are (YOLOv3's objectness),
        else in what an assigner gives its predictions (PP-YOLOE, PicoDet, TOOD), else, for detectors whose loss has no
        place for it, the whole loss by the mean of the batch's scores.

        Args:
            batch: of images without labels.
            detector: the teacher's `detectors.Detector`.
            prepare: what makes of the batch one that the teacher knows, or None.
            student: the `detectors.Detector` that learns.

        Returns:
            ``(batch, block, factor)``: a new dict, a context manager in which the student trains on it, and what its
            loss is multiplied by.
        """
        least = self.least.numpy()
        found = [_kept(*each, least) for each in zip(_detected(detector, batch, prepare), batch[FRAME].numpy())]
        numbers = [len(scores) for _, _, scores in found]
        with paddle.no_grad():
            news = [len(found), sum(map(bool, numbers)), sum(numbers)]
            paddle.assign(self.counted + paddle.to_tensor(news, "int64"), self.counted)
        if not self.spec.soft:
            found = [(boxes, classes, np.ones_like(scores)) for boxes, classes, scores in found]
        if STRONG in batch:
            batch = {**batch, "image": batch[STRONG]}
        batch, counted = self.targets(batch, found)
        if not self.spec.soft or counted or not sum(numbers):
            return batch, contextlib.nullcontext(), 1.0
        if not assigners(student.model):
            return batch, contextlib.nullcontext(), float(np.concatenate([each[2] for each in found]).mean())
        scores = np.zeros(batch[BOXES].shape[:2], "float32")
        for row, (_, _, each) in zip(scores, found):
            row[: len(each)] = each
        given = (batch[BOXES], batch[CLASSES], paddle.to_tensor(scores))
        return batch, counted_by_score([student.model, detector.model], *given), 1.0


def _kept(results, frame, least):
    """Of one image's (n, 6) class, score and corners those that count, within the picture, the best first."""
    classes, scores = results[:, 0].astype("int64"), results[:, 1]
    boxes = np.clip(results[:, 2:6], 0, np.tile(frame[::-1], 2))
    known = (classes >= 0) & (classes < len(least))
    # Of two stages ppdet's stand-in for nothing at all has class 0, and a score of 0, which no detection has.
    good = known & (scores > 0) & (scores >= least[np.where(known, classes, 0)])
    good &= (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(1)
    order = np.argsort(-scores, kind="stable")
    order = order[good[order]]
    return boxes[order], classes[order], scores[order]


def _classes(detector):
    counts = (getattr(layer, "num_classes", None) for layer in detector.model.children())
    return next((count for count in counts if isinstance(count, int)), None)


def _precise(model):
    """A block outside of a step's precision: what decides between boxes is worth float32.

    Weights of a lower type (level O2, or ``teacher_dtype``) compute in it, and what comes after them does not: by level
    O1, for O2 would round corners as well, in bfloat16 to four pixels of 640.
    """
    low = next((x.dtype for x in model.parameters() if x.dtype in (paddle.float16, paddle.bfloat16)), None)
    if low is None:
        return paddle.amp.auto_cast(enable=False)
    return paddle.amp.auto_cast(level="O1", dtype="float16" if low == paddle.float16 else "bfloat16")


def _looks_at_one(model):
    """Whether a detector knows batches of one image alone.

    ppdet decodes CenterNet's so; and where one of several images has no box, making masks fails, or mixes them up.
    """
    return type(model).__name__ == "CenterNet" or getattr(model, "mask_head", None) is not None


@paddle.no_grad()
def _detected(detector, batch, prepare):
    """What a detector finds, an array (n, 6) an image, corners in pixels of the images of `batch`."""
    seen = {key: batch[key] for key in ("image", "im_shape", "im_id", FRAME) if key in batch}
    seen = dict(prepare(seen)) if prepare else seen
    ours, theirs = (np.array(each["image"].shape[2:], "float32") for each in (batch, seen))
    count = batch["image"].shape[0]
    # The images as they are, padding and all: a detector tells corners in pixels of the file else.
    seen["im_shape"] = paddle.to_tensor(np.tile(theirs, (count, 1)))
    seen["scale_factor"] = paddle.ones([count, 2])
    # Of detectors whose boxes begin as learned ones (Sparse R-CNN, QueryInst) the readers tell sizes by other names.
    frames = batch[FRAME].numpy() * (theirs / ours)
    seen["img_whwh"] = paddle.to_tensor(np.tile(frames[:, ::-1], (1, 2)).astype("float32"))
    seen["scale_factor_whwh"] = paddle.ones([count, 4])
    seen["ori_shape"] = paddle.to_tensor(np.rint(frames).astype("int32"))
    found = []
    for rows in [slice(i, i + 1) for i in range(count)] if _looks_at_one(detector.model) else [slice(None)]:
        with _precise(detector.model):
            made = detector.model({key: value[rows] for key, value in seen.items()})
        results = made["bbox"].astype("float32").numpy().reshape(-1, 6)  # numpy has no bfloat16
        results[:, 2:] *= np.tile((ours / theirs)[::-1], 2)
        ends = np.cumsum(made["bbox_num"].numpy().reshape(-1))
        # ppdet's stand-in for nothing at all has class -1.
        found += np.split(results, ends[:-1])
    return found[:count]
