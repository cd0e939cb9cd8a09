"""FCOS: three output convolutions, called once a level; a scale of each level's own follows the box one."""

from functools import partial

from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import exponential_distances, rectified_distances
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Tower, convolutions


class FCOS(Detector):
    """Adds ``head.cls[i]`` (class logits), ``head.box[i]`` (scaled distances, before what keeps them positive),
    ``head.ltrb[i]`` (distances in strides), ``head.centerness[i]`` (logits) and the towers.
    """

    head_name = "fcos_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "fcos_head", None)).__name__ in ("FCOSHead", "FCOSHeadOfMMDet")

    @property
    def cell_offset(self):
        return self.head.num_shift

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("fcos_head.fcos_head_cls", call=i),
            "head.box": self._scaled,
            "head.ltrb": lambda i: self._scaled(i, self._positive),
            "head.centerness": lambda i: Tap("fcos_head.fcos_head_centerness", call=i),
        }

    def towers(self):
        classes, boxes = convolutions("fcos_head.fcos_feat", self.head.fcos_feat)
        before_centerness = ("head.box_tower", boxes) if self.head.centerness_on_reg else ("head.cls_tower", classes)
        return {
            "head.cls": Tower("head.cls_tower", classes),
            "head.box": Tower("head.box_tower", boxes, lambda i: [Tap("fcos_head.fcos_head_reg", call=i)]),
            "head.centerness": Tower(*before_centerness),
        }

    def _scaled(self, i, derive_of=None):
        scales = [name for name, _ in self.head.named_children() if name.startswith("p") and name.endswith("_feat")]
        if i < len(scales):
            return Tap(f"fcos_head.{scales[i]}", derive=derive_of and derive_of(i))
        return None

    def _positive(self, i):
        # Trained on normalised targets the head gives strides, whatever it multiplies by afterwards; else pixels.
        if self.head.norm_reg_targets:
            return rectified_distances
        return partial(exponential_distances, stride=self.head.fpn_stride[i])
