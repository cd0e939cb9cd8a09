"""SOLOv2: classes and kernels on a grid a level, of so many cells whatever the image's size, and one map for masks."""

from ppkd.detectors.base import Detector
from ppkd.detectors.taps import Tap


class SOLOv2(Detector):
    """Adds ``head.cls[i]`` (class logits of the i-th grid), ``head.kernel[i]`` and ``head.mask`` (mask features)."""

    head_name = "solov2_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "solov2_head", None)).__name__ == "SOLOv2Head"

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("solov2_head.bbox_head.solo_cate", call=i, grid=True),
            "head.kernel": lambda i: Tap("solov2_head.bbox_head.solo_kernel", call=i, grid=True),
            "head.mask": lambda i: Tap("mask_head") if i == 0 else None,
        }

    def run_head(self, features, batch):
        self.model.mask_head(features)
        self.head(features)
