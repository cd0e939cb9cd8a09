"""Faster, Mask and Cascade R-CNN: what their heads say of regions differs from model to model, as the regions do.

So logits can be compared where both look at the same places: at those of the region proposal network.
"""

from ppkd.detectors.base import Detector, Tap


class RCNN(Detector):
    """Adds ``head.objectness[i]`` and ``head.box[i]``, the region proposal network's logits and box deltas."""

    head_name = "rpn_head"

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "rpn_head", None)).__name__ == "RPNHead"

    def aliases(self):
        return {
            **super().aliases(),
            "head.objectness": lambda i: Tap("rpn_head.rpn_rois_score", call=i),
            "head.box": lambda i: Tap("rpn_head.rpn_rois_delta", call=i),
        }

    def run_head(self, features, batch):
        for feature in self.head.rpn_feat(features):
            self.head.rpn_rois_score(feature)
            self.head.rpn_rois_delta(feature)
