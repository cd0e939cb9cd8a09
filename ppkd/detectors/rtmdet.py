"""RTMDet: two towers a level, of convolutions that the levels share and batch norms that they do not."""

from functools import partial

import paddle.nn.functional as F

from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import exponential_distances, raw_distances
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Rung, Tower


class RTMDet(Detector):
    """Adds ``neck.conv[i]`` (the neck's last convolutions, before their batch norm), ``head.cls[i]`` (class logits),
    ``head.box[i]`` (raw distances), ``head.ltrb[i]`` (distances in strides, which may be negative) and the towers.
    """

    cell_offset = 0.0

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "RTMDet"

    def aliases(self):
        # Without a stride to divide by: these are logarithms of strides.
        distances = partial(exponential_distances, stride=1) if self.head.exp_on_reg else raw_distances
        return {
            **super().aliases(),
            "neck.conv": lambda i: Tap(f"neck.out_layers.{i}.conv"),
            "head.cls": lambda i: Tap(f"head.rtm_cls.{i}"),
            "head.box": lambda i: Tap(f"head.rtm_reg.{i}"),
            "head.ltrb": lambda i: Tap(f"head.rtm_reg.{i}", derive=distances),
        }

    def towers(self):
        layers = range(len(self.head.cls_convs))
        classes, boxes = (
            tuple(Rung(partial(_layer, branch, k), partial(_run, branch, k)) for k in layers)
            for branch in ("cls", "reg")
        )
        return {"head.cls": Tower("head.cls_tower", classes), "head.box": Tower("head.box_tower", boxes)}


def _layer(branch, k, level):
    # The convolution is called by all levels, in turns with the other layers'; the norm is a level's own.
    return Tap(f"head.{branch}_norms.{level}.{k}", derive=F.silu)


def _run(branch, k, model, tap, x):
    level = int(tap.path.split(".")[2])
    return model.head.layer(branch, level, k, x)
