"""PP-YOLOE and PP-YOLOE+: one output convolution a level, from the coarsest level to the finest."""

from ppkd.detectors.base import Detector, Tap


class PPYOLOE(Detector):
    """Adds ``head.cls[i]`` (class logits) and ``head.box_dist[i]`` (logits of the edge distributions)."""

    head_name = "yolo_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "yolo_head", None)).__name__ == "PPYOLOEHead"

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap(f"yolo_head.pred_cls.{i}"),
            "head.box_dist": lambda i: Tap(f"yolo_head.pred_reg.{i}"),
        }
