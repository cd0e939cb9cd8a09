"""YOLOv3, PP-YOLO and PP-YOLOv2: one map a level with box, objectness and classes of every anchor."""

from functools import partial

from ppkd.detectors.base import ANCHORS, Detector
from ppkd.detectors.decoding import boxes_in_cells, fields
from ppkd.detectors.taps import Tap

_BOX, _OBJECTNESS, _CLASSES = (0, 4), (4, 5), (5, None)


class YOLOv3(Detector):
    """Adds ``head.box[i]`` (x, y, w, h of each anchor), ``head.objectness[i]`` and ``head.cls[i]``, all raw,
    and ``head.ltrb[i]``.
    """

    head_name = "yolo_head"
    abilities = frozenset({ANCHORS})

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "yolo_head", None)).__name__ == "YOLOv3Head"

    def aliases(self):
        return {
            **super().aliases(),
            "head.box": partial(self._tap, _BOX),
            "head.objectness": partial(self._tap, _OBJECTNESS),
            "head.cls": partial(self._tap, _CLASSES),
            "head.ltrb": self._edges,
        }

    def _tap(self, part, i):
        begin, end = part
        derive = partial(fields, anchors=len(self.head.anchors[0]), begin=begin, end=end, skip=self._skip)
        return Tap(f"yolo_head.yolo_output.{i}", derive=derive)

    def _edges(self, i):
        head = self.head
        if i >= len(head.anchors):
            return None
        stride = head.loss.downsample[i]
        sizes = tuple((width / stride, height / stride) for width, height in head.anchors[i])
        derive = partial(
            boxes_in_cells, sizes=sizes, cell_offset=self.cell_offset, scale=head.loss.scale_x_y, skip=self._skip
        )
        return Tap(f"yolo_head.yolo_output.{i}", derive=derive)

    @property
    def _skip(self):
        # PP-YOLO predicts the IoU of every anchor in channels before all others.
        return len(self.head.anchors[0]) if self.head.iou_aware else 0
