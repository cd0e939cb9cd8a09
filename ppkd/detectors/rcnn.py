"""Faster, Mask and Cascade R-CNN: what their heads say of regions differs from model to model, as the regions do.

So logits can be compared where both look at the same places: at those of the region proposal network.
"""

from functools import partial

from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import boxes_on_anchors
from ppkd.detectors.retinanet import anchor_sizes
from ppkd.detectors.taps import Tap


class RCNN(Detector):
    """Adds ``head.objectness[i]``, ``head.box[i]`` and ``head.ltrb[i]``: the region proposal network's logits, box
    deltas and distances to the edges of the proposals.
    """

    head_name = "rpn_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "rpn_head", None)).__name__ in ("RPNHead", "RPNHeadOfMMDet")

    @property
    def cell_offset(self):
        return self.head.anchor_generator.offset

    def aliases(self):
        return {
            **super().aliases(),
            "head.objectness": lambda i: Tap("rpn_head.rpn_rois_score", call=i),
            "head.box": lambda i: Tap("rpn_head.rpn_rois_delta", call=i),
            "head.ltrb": self._edges,
        }

    def _edges(self, i):
        sizes = anchor_sizes(self.head.anchor_generator, i)
        return sizes and Tap("rpn_head.rpn_rois_delta", call=i, derive=partial(boxes_on_anchors, sizes=sizes))

    def run_head(self, features, batch):
        for feature in self.head.rpn_feat(features):
            self.head.rpn_rois_score(feature)
            self.head.rpn_rois_delta(feature)
