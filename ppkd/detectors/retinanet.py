"""RetinaNet: one pair of output convolutions, called once a level."""

from ppkd.detectors.base import Detector, Tap


class RetinaNet(Detector):
    """Adds ``head.cls[i]`` (class logits) and ``head.box[i]`` (box deltas)."""

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "RetinaNet"

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.retina_cls", call=i),
            "head.box": lambda i: Tap("head.retina_reg", call=i),
        }
