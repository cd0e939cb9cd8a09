"""What a loss may ask for beside its tensors: ground-truth boxes, image sizes, the target assignment."""

from dataclasses import dataclass
from functools import cached_property

import paddle

from ppkd.bridge.ground_truth import BOXES, CLASSES, FRAME, VALID
from ppkd.errors import UserError
from ppkd.losses.common import as_float
from ppkd.losses.kernels import numbers


@dataclass(frozen=True)
class Assignment:
    """The targets that a detector's loss assigned to its A predictions, all levels in the order of its head.

    Attributes:
        labels: (N, A) class of the target, `background` where there is none.
        boxes: (N, A, 4) corners in pixels of the network input.
        scores: (N, A, K) soft class targets, 0 outside of the target's class.
        background: the label of a prediction without a target.
    """

    labels: object
    boxes: object
    scores: object
    background: int

    @cached_property
    def positive(self):
        """(N, A) float32: 1 where a prediction has a target."""
        return (self.labels != numbers([self.background], self.labels, self.labels.dtype)).astype("float32")


@dataclass(frozen=True)
class Clock:
    """When a step is: its epoch, its batch of that epoch, both from 0, and how many batches an epoch has."""

    epoch: int = 0
    batch: int = 0
    batches: int = 1

    def since(self, epoch, every=1):
        """Batches that have passed since the beginning of `epoch`, of each epoch those numbered 0, `every`, ..."""
        return (self.epoch - epoch) * -(-self.batches // every) + -(-self.batch // every)


class Context:
    """Lazily derives a loss's context inputs from a batch.

    A loss asks for them by the names of its ``forward`` parameters: ``boxes`` (N, M, 4), corners in pixels of the
    network input, M at least 1, zero padded; ``boxes_valid`` (N, M), 1 for a box and 0 for padding; ``classes`` (N, M),
    int64, of the boxes; ``image_size`` (N, 2), height and width in pixels before padding; ``padded_size``
    ``(height, width)`` of the network input; ``assignment``, the `Assignment` of the student's own loss. Of the
    student's head, the same in every step: ``strides`` of the levels that the loss gets, ``cell_offset``, ``first_bin``
    and ``num_classes`` (see `detectors.Detector`).

    Args:
        batch: a training batch of `loader.TrainLoader`.
        assignment: `Assignment`, if any loss asks for it.
        clock: `Clock`, for connectors that do something every so many batches.
        labels: whether the images have labels; without, what only these tell is None.
    """

    STATIC = ("strides", "cell_offset", "first_bin", "num_classes")
    NAMES = ("boxes", "boxes_valid", "classes", "image_size", "padded_size", "assignment", *STATIC)

    def __init__(self, batch, assignment=None, clock=Clock(), labels=True):
        self._batch, self._labels = batch, labels
        self.assignment = assignment
        self.clock = clock

    def pick(self, names):
        """The named inputs as keyword arguments."""
        return {name: getattr(self, name) for name in names}

    @cached_property
    def padded_size(self):
        return tuple(self._batch["image"].shape[2:])

    @cached_property
    def image_size(self):
        return as_float(self._batch[FRAME if FRAME in self._batch else "im_shape"])

    @property
    def boxes(self):
        return self._kept(BOXES)

    @property
    def boxes_valid(self):
        return self._kept(VALID)

    @property
    def classes(self):
        return self._kept(CLASSES)

    def _kept(self, key):
        if not self._labels:
            return None
        if key not in self._batch:
            raise UserError("a loss needs ground-truth boxes, but TrainDataset.data_fields has no gt_bbox")
        value = self._batch[key]
        # Paddle refuses most operations on an axis of length 0; a row of padding changes nothing.
        return value if value.shape[1] else paddle.zeros([value.shape[0], 1, *value.shape[2:]], value.dtype)
