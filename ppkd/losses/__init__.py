"""The mathematics of distillation: one file a method, knowing nothing of detectors or configs.

A loss is called ``loss(student, teacher, **context)``; the context it needs are the further
arguments of its ``forward``: ``boxes``, ``boxes_valid``, ``image_size``, ``padded_size``. It
returns one scalar, or a mapping of names to scalars with their weights applied. A loss with
parameters of its own takes the channels of the maps as ``channels``.
"""

from .cwd import CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .kl import KLLoss
from .l2 import L2Loss, MimicLoss
from .mgd import MGDLoss
from .pkd import PKDLoss

# By the name that a `loss:` of a term gives. DKD and LD are not here: they need labels or the
# assignment of anchors, which only a detector's head knows.
LOSSES = {
    "cwd": CWDLoss,
    "dist": DISTLoss,
    "fgd": FGDLoss,
    "kl": KLLoss,
    "l2": L2Loss,
    "mgd": MGDLoss,
    "mimic": MimicLoss,
    "pkd": PKDLoss,
}

__all__ = [
    "LOSSES",
    "CWDLoss",
    "DISTLoss",
    "DKDLoss",
    "FGDLoss",
    "KLLoss",
    "L2Loss",
    "MGDLoss",
    "MimicLoss",
    "PKDLoss",
]
