"""Models given as ONNX as teachers: their outputs by name, and of detectors what they find."""

import re

from ppkd.detectors.base import PROBE_SIZE, Detector
from ppkd.detectors.taps import Tap

_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")


class ONNX(Detector):
    """Has ``output[i]``, the file's outputs in their order, and each by its name; ``found`` of a detector.

    Of a name, what is neither letter, digit, underscore nor dot becomes an underscore, and what stands before the first
    letter is left out: ``/model.22/cv2`` is ``model.22_cv2``. ``found`` are boxes (N, M, 6), see `ONNXDetector`.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ in ("ONNXTeacher", "ONNXDetector")

    def aliases(self):
        names = self.model.session.outputs
        found = {"output": lambda i: Tap(f"out{i}") if i < len(names) else None}
        for number, name in enumerate(names):
            found[plain_name(name)] = lambda i, number=number: Tap(f"out{number}") if i == 0 else None
        if hasattr(self.model, "found"):
            found["found"] = lambda i: Tap("found") if i == 0 else None
        return found

    def run(self, batch, parts):
        self.model(batch, parts)

    @property
    def probe_size(self):
        """Side of the images of the dry forward: the file's own, if it takes one alone."""
        return self.model.session.size[0] or PROBE_SIZE


def plain_name(name):
    """An output's name as a source."""
    return _PLAIN.sub("_", name).lstrip("_.0123456789") or "output"
