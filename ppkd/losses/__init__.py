"""The mathematics of distillation: one file a method, knowing nothing of detectors or configs.

A loss is called ``loss(student, teacher, **context)``; the context it needs are the further
arguments of its ``forward``, such as ``boxes`` and ``strides`` (`context.Context` has them all). It
returns one scalar, or a mapping from the names of its parts to scalars, with their weights applied. A loss with
parameters of its own takes the channels of the maps as ``channels`` (those of the student's map before a
connector as ``student_channels``). A loss class with
``all_levels`` gets the levels of a pyramid in lists instead of one level's tensor; one with ``least_classes``
is refused when the run is built where the student has fewer; one with ``shares_queries`` gets what both
decoders make of the same queries; one that compares several sources names them in ``compares``. One of those here
without ``takes_tokens`` compares maps (N, C, H, W) alone.
"""

from .bckd import BCKDClassLoss, BCKDLoss
from .cosine import CosineLoss
from .crosskd import CrossKDBoxLoss, CrossKDClassLoss, CrossKDGIoULoss
from .cwd import CWDLoss
from .detr_match import DETRMatchLoss
from .dist import DISTLoss
from .dkd import DenseDKDLoss, DKDLoss
from .fgd import FGDLoss
from .found_boxes import FoundBoxesLoss
from .kl import KLLoss
from .l2 import L2Loss, MimicLoss
from .ld import LDLoss
from .mgd import MGDLoss
from .partial_l2 import PartialL2Loss
from .pkd import PKDLoss
from .ppyoloe import PPYOLOELoss
from .score_l2 import ScoreL2Loss
from .shared_queries import SharedQueriesLoss
from .yolov3 import YOLOv3Loss

# By the name that a `loss:` of a term gives. DKDLoss is not here: it needs labels of single rows.
LOSSES = {
    "bckd": BCKDLoss,
    "bckd_cls": BCKDClassLoss,
    "cosine": CosineLoss,
    "crosskd_box": CrossKDBoxLoss,
    "crosskd_cls": CrossKDClassLoss,
    "crosskd_giou": CrossKDGIoULoss,
    "cwd": CWDLoss,
    "detr_match": DETRMatchLoss,
    "dist": DISTLoss,
    "dkd": DenseDKDLoss,
    "fgd": FGDLoss,
    "found_boxes": FoundBoxesLoss,
    "kl": KLLoss,
    "l2": L2Loss,
    "ld": LDLoss,
    "mgd": MGDLoss,
    "mimic": MimicLoss,
    "partial_l2": PartialL2Loss,
    "pkd": PKDLoss,
    "ppyoloe": PPYOLOELoss,
    "score_l2": ScoreL2Loss,
    "shared_queries": SharedQueriesLoss,
    "yolov3": YOLOv3Loss,
}

__all__ = [
    "LOSSES",
    "BCKDClassLoss",
    "BCKDLoss",
    "CWDLoss",
    "CosineLoss",
    "CrossKDBoxLoss",
    "CrossKDClassLoss",
    "CrossKDGIoULoss",
    "DETRMatchLoss",
    "DISTLoss",
    "DKDLoss",
    "DenseDKDLoss",
    "FGDLoss",
    "FoundBoxesLoss",
    "KLLoss",
    "L2Loss",
    "LDLoss",
    "MGDLoss",
    "MimicLoss",
    "PKDLoss",
    "PPYOLOELoss",
    "PartialL2Loss",
    "ScoreL2Loss",
    "SharedQueriesLoss",
    "YOLOv3Loss",
]
