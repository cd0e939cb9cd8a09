"""What a loss may ask for beside its two tensors: ground-truth boxes, image sizes."""

from functools import cached_property

from ppkd.errors import UserError
from ppkd.ground_truth import BOXES, VALID


class Context:
    """Lazily derives a loss's context inputs from a batch.

    A loss asks for them by the names of its ``forward`` parameters: ``boxes`` (N, M, 4), corners in pixels of the
    network input, zero padded; ``boxes_valid`` (N, M), 1 for a box and 0 for padding; ``image_size`` (N, 2), height and
    width in pixels before padding; ``padded_size`` ``(height, width)`` of the network input.

    Args:
        batch: a training batch of `loader.TrainLoader`.
    """

    NAMES = ("boxes", "boxes_valid", "image_size", "padded_size")

    def __init__(self, batch):
        self._batch = batch

    def pick(self, names):
        """The named inputs as keyword arguments."""
        return {name: getattr(self, name) for name in names}

    @cached_property
    def padded_size(self):
        return tuple(self._batch["image"].shape[2:])

    @cached_property
    def image_size(self):
        return self._batch["im_shape"].astype("float32")

    @property
    def boxes(self):
        return self._kept(BOXES)

    @property
    def boxes_valid(self):
        return self._kept(VALID)

    def _kept(self, key):
        if key not in self._batch:
            raise UserError("a loss needs ground-truth boxes, but TrainDataset.data_fields has no gt_bbox")
        return self._batch[key]
