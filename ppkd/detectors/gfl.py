"""GFL and PicoDet: class logits and, for each edge of a box, the logits of a distribution over distances."""

from functools import partial

from ppkd.detectors.base import Detector, Tap
from ppkd.detectors.views import channels


class GFL(Detector):
    """Adds ``head.cls[i]`` (class logits) and ``head.box_dist[i]`` (logits of the edge distributions)."""

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "GFL"

    @property
    def cell_offset(self):
        return self.head.cell_offset

    def aliases(self):
        # The convolutions are shared by the levels; what scales their output is not.
        scales = [name for name, _ in self.head.named_children() if name.startswith("p") and name.endswith("_feat")]
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.gfl_head_cls", call=i),
            "head.box_dist": lambda i: Tap(f"head.{scales[i]}") if i < len(scales) else None,
        }


class PicoDet(Detector):
    """Adds ``head.cls[i]`` and ``head.box_dist[i]`` as `GFL` does.

    Both may come out of one convolution. The released models' head aligns its class scores afterwards.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "PicoDet" and type(model.head).__name__ in ("PicoHead", "PicoHeadV2")

    @property
    def cell_offset(self):
        return self.head.cell_offset

    def aliases(self):
        if type(self.head).__name__ == "PicoHead" and self.head.conv_feat.share_cls_reg:
            count = self.head.cls_out_channels
            classes = partial(channels, begin=0, end=count)
            edges = partial(channels, begin=count, end=None)
            return {
                **super().aliases(),
                "head.cls": lambda i: Tap(f"head.head_cls{i}", view=classes),
                "head.box_dist": lambda i: Tap(f"head.head_cls{i}", view=edges),
            }
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap(f"head.head_cls{i}"),
            "head.box_dist": lambda i: Tap(f"head.head_reg{i}"),
        }

    def run_head(self, features, batch):
        # In eval mode the head would go on to decode boxes on the grid of its eval_size.
        self.head.forward_train(features)
