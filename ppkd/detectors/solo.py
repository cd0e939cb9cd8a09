"""SOLO: classes and masks for the cells of a grid a level, of so many cells whatever the image's size."""

from ppkd.detectors.base import Detector
from ppkd.detectors.taps import Tap


class SOLO(Detector):
    """Adds ``head.cls[i]`` (class logits of the i-th grid) and ``head.mask[i]`` (the mask logits of its cells), of a
    decoupled head ``head.mask_x[i]`` and ``head.mask_y[i]``.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "SOLO"

    def aliases(self):
        kinds = ("mask_x", "mask_y") if hasattr(self.head, "conv_mask_list_x") else ("mask",)
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.conv_cls", call=i, grid=True),
            **{f"head.{kind}": lambda i, kind=kind: Tap(f"head.conv_{_LISTS[kind]}.{i}") for kind in kinds},
        }


_LISTS = {"mask": "mask_list", "mask_x": "mask_list_x", "mask_y": "mask_list_y"}
