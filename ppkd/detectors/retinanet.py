"""RetinaNet: one pair of output convolutions, called once a level."""

from functools import partial

from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import boxes_on_anchors
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Tower, convolutions


class RetinaNet(Detector):
    """Adds ``head.cls[i]`` (class logits), ``head.box[i]`` (box deltas), ``head.ltrb[i]`` and the towers."""

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "RetinaNet"

    @property
    def cell_offset(self):
        return self.head.anchor_generator.offset

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.retina_cls", call=i),
            "head.box": lambda i: Tap("head.retina_reg", call=i),
            "head.ltrb": self._edges,
        }

    def towers(self):
        classes, boxes = convolutions("head.conv_feat", self.head.conv_feat)
        return {"head.cls": Tower("head.cls_tower", classes), "head.box": Tower("head.box_tower", boxes)}

    def _edges(self, i):
        sizes = anchor_sizes(self.head.anchor_generator, i)
        derive = sizes and partial(boxes_on_anchors, sizes=sizes, weights=tuple(self.head.weights))
        return derive and Tap("head.retina_reg", call=i, derive=derive)


def anchor_sizes(generator, level):
    """Width and height of each of a level's anchors, in strides, or None beyond the last level.

    ppdet's generators put the middles of all of them on the cell's point.
    """
    if level >= len(generator.strides):
        return None
    corners = (generator.cell_anchors[level] / generator.strides[level]).tolist()
    return tuple((right - left, bottom - top) for left, top, right, bottom in corners)
