"""YOLOv3, PP-YOLO and PP-YOLOv2: one map a level with box, objectness and classes of every anchor."""

from functools import partial

from ppkd.detectors.base import ANCHORS, Detector, Tap
from ppkd.detectors.views import fields

_BOX, _OBJECTNESS, _CLASSES = (0, 4), (4, 5), (5, None)


class YOLOv3(Detector):
    """Adds ``head.box[i]`` (x, y, w, h of each anchor), ``head.objectness[i]`` and ``head.cls[i]``, all raw."""

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
        }

    def _tap(self, part, i):
        anchors = len(self.head.anchors[0])
        # PP-YOLO predicts the IoU of every anchor in channels before all others.
        skip = anchors if self.head.iou_aware else 0
        begin, end = part
        return Tap(f"yolo_head.yolo_output.{i}", view=partial(fields, anchors=anchors, begin=begin, end=end, skip=skip))
