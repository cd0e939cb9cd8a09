"""TOOD: two output convolutions, called once a level; what aligns the two tasks comes after them."""

from ppkd.detectors.base import Detector, Tap


class TOOD(Detector):
    """Adds ``head.cls[i]`` (class logits before the alignment) and ``head.box[i]`` (log distances before scale)."""

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "TOOD"

    @property
    def cell_offset(self):
        return self.head.grid_cell_offset

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.tood_cls", call=i),
            "head.box": lambda i: Tap("head.tood_reg", call=i),
        }
