"""FCOS: three output convolutions, called once a level; a scale of each level's own follows the box one."""

from ppkd.detectors.base import Detector, Tap


class FCOS(Detector):
    """Adds ``head.cls[i]`` (class logits), ``head.box[i]`` (scaled distances, before what keeps them positive) and
    ``head.centerness[i]`` (logits).
    """

    head_name = "fcos_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "fcos_head", None)).__name__ == "FCOSHead"

    @property
    def cell_offset(self):
        return self.head.num_shift

    def aliases(self):
        scales = [name for name, _ in self.head.named_children() if name.startswith("p") and name.endswith("_feat")]
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("fcos_head.fcos_head_cls", call=i),
            "head.box": lambda i: Tap(f"fcos_head.{scales[i]}") if i < len(scales) else None,
            "head.centerness": lambda i: Tap("fcos_head.fcos_head_centerness", call=i),
        }
