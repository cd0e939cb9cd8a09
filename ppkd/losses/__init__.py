"""The mathematics of distillation: one file a method, knowing nothing of detectors or configs.

A loss is called ``loss(student, teacher, **context)``; the context it needs are the further
arguments of its ``forward``: ``boxes``, ``boxes_valid``, ``image_size``, ``padded_size``. It
returns one scalar, or a mapping of names to scalars with their weights applied. A loss with
parameters of its own takes the channels of the maps as ``channels`` (those of the student's map before a
connector as ``student_channels``). A loss class with
``all_levels`` gets the levels of a pyramid in lists instead of one level's tensor.
"""

from .cwd import CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .kl import KLLoss
from .l2 import L2Loss, MimicLoss
from .ld import LDLoss
from .mgd import MGDLoss
from .pkd import PKDLoss
from .ppyoloe import PPYOLOELoss
from .yolov3 import YOLOv3Loss

# By the name that a `loss:` of a term gives. DKD is not here: it needs labels of single rows.
LOSSES = {
    "cwd": CWDLoss,
    "dist": DISTLoss,
    "fgd": FGDLoss,
    "kl": KLLoss,
    "l2": L2Loss,
    "ld": LDLoss,
    "mgd": MGDLoss,
    "mimic": MimicLoss,
    "pkd": PKDLoss,
    "ppyoloe": PPYOLOELoss,
    "yolov3": YOLOv3Loss,
}

__all__ = [
    "LOSSES",
    "CWDLoss",
    "DISTLoss",
    "DKDLoss",
    "FGDLoss",
    "KLLoss",
    "L2Loss",
    "LDLoss",
    "MGDLoss",
    "MimicLoss",
    "PKDLoss",
    "PPYOLOELoss",
    "YOLOv3Loss",
]
