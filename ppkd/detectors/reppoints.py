"""RepPoints: output convolutions that all levels share, called once a level."""

from ppkd.detectors.base import Detector
from ppkd.detectors.taps import Tap


class RepPoints(Detector):
    """Adds ``head.cls[i]`` (class logits) and ``head.points[i]`` (the first points, y before x, in strides).

    The refined points are a sum of two modules' outputs and have no name. Before the class logits stands a deformable
    convolution that looks where the other tower says: there is no tower that runs by itself.
    """

    cell_offset = 0.0

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "RepPoints"

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.reppoints_cls_out", call=i),
            "head.points": lambda i: Tap("head.reppoints_pts_init_out", call=i),
        }
