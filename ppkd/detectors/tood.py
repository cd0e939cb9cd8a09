"""TOOD: two output convolutions, called once a level; what aligns the two tasks comes after them."""

import paddle
import paddle.nn.functional as F

from ppkd.detectors.base import Detector
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Rung, Tower, apply_pooled


class TOOD(Detector):
    """Adds ``head.cls[i]`` (class logits before the alignment), ``head.box[i]`` (log distances before scale) and the
    towers; with ``use_align_head: false`` also ``head.ltrb[i]``: aligned boxes are sampled from those of other places
    by an offset that is predicted, and no module returns them a level.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "TOOD"

    @property
    def cell_offset(self):
        return self.head.grid_cell_offset

    def aliases(self):
        found = {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.tood_cls", call=i),
            "head.box": lambda i: Tap("head.tood_reg", call=i),
        }
        if not self.head.use_align_head:
            found["head.ltrb"] = lambda i: Tap(f"head.scales_regs.{i}")
        return found

    def towers(self):
        # One layer: the decomposition takes the outputs of all convolutions, so nothing between them can go on alone.
        return {
            "head.cls": Tower("head.cls_tower", (Rung(lambda i: Tap("head.cls_decomp", call=i), _decomposed),)),
            "head.box": Tower("head.box_tower", (Rung(lambda i: Tap("head.reg_decomp", call=i), _decomposed),)),
        }


def _decomposed(model, tap, x):
    features = []
    for convolution in model.head.inter_convs:
        x = F.relu(convolution(x))
        features.append(x)
    return apply_pooled(model, tap, paddle.concat(features, axis=1))
