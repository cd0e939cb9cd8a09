"""What a loss may ask for beside its two tensors: ground-truth boxes, image sizes."""

from functools import cached_property

import paddle


class Context:
    """Lazily derives a loss's context inputs from ppdet's batch.

    A loss asks for them by the names of its ``forward`` parameters: ``boxes`` (N, M, 4) in pixels of the network
    input, zero padded; ``boxes_valid`` (N, M), 1 for a box and 0 for padding; ``image_size`` (N, 2), height and width
    before padding; ``padded_size`` ``(height, width)`` of the network input.

    Args:
        batch: ppdet's training batch.
        normalised_xywh: the reader gives boxes as relative centre and size (YOLOv3's), not as corners in pixels.
    """

    NAMES = ("boxes", "boxes_valid", "image_size", "padded_size")

    def __init__(self, batch, normalised_xywh=False):
        self._batch = batch
        self._normalised_xywh = normalised_xywh

    def pick(self, names):
        """The named inputs as keyword arguments."""
        return {name: getattr(self, name) for name in names}

    @cached_property
    def padded_size(self):
        return tuple(self._batch["image"].shape[2:])

    @cached_property
    def image_size(self):
        return self._batch["im_shape"].astype("float32")

    @cached_property
    def boxes(self):
        given = self._batch["gt_bbox"]
        boxes = _pad(given) if isinstance(given, (list, tuple)) else given
        boxes = boxes.astype("float32")
        if self._normalised_xywh:
            height, width = self.padded_size
            centre, size = boxes[:, :, :2], boxes[:, :, 2:]
            scale = paddle.to_tensor([width, height, width, height], dtype="float32")
            boxes = paddle.concat([centre - size / 2, centre + size / 2], axis=-1) * scale
        return boxes

    @cached_property
    def boxes_valid(self):
        # Readers mark padding differently or not at all; a padded row is all zeros and so has no area.
        x1, y1, x2, y2 = self.boxes.unbind(axis=-1)
        return ((x2 > x1) & (y2 > y1)).astype("float32")


def _pad(boxes):
    """Stack a list of (n_i, 4) tensors into (N, max n_i, 4), zeros behind."""
    most = max([b.shape[0] for b in boxes] + [0])
    rows = []
    for b in boxes:
        b = b.reshape([-1, 4]).astype("float32")
        missing = most - b.shape[0]
        rows.append(paddle.concat([b, paddle.zeros([missing, 4])]) if missing else b)
    return paddle.stack(rows)


def gives_normalised_xywh(config):
    """Whether the TrainReader of a ppdet config turns boxes into relative centre and size."""
    reader = config.get("TrainReader") or {}
    steps = {
        name for part in ("sample_transforms", "batch_transforms") for step in reader.get(part) or [] for name in step
    }
    return {"NormalizeBox", "BboxXYXY2XYWH"} <= steps
