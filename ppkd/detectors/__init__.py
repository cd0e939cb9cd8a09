"""What differs between detector architectures: the names of sources and the part of a teacher that has to run."""

from ppkd.detectors.base import ANCHORS, TARGETS, Detector
from ppkd.detectors.detr import DETR
from ppkd.detectors.fcos import FCOS
from ppkd.detectors.gfl import GFL, PicoDet
from ppkd.detectors.onnx import ONNX
from ppkd.detectors.ppyoloe import PPYOLOE
from ppkd.detectors.rcnn import RCNN
from ppkd.detectors.reppoints import RepPoints
from ppkd.detectors.retinanet import RetinaNet
from ppkd.detectors.rtmdet import RTMDet
from ppkd.detectors.solo import SOLO
from ppkd.detectors.solov2 import SOLOv2
from ppkd.detectors.taps import Level, Tap
from ppkd.detectors.tood import TOOD
from ppkd.detectors.vit import ViT
from ppkd.detectors.yolov3 import YOLOv3
from ppkd.detectors.yolox import YOLOX

__all__ = ["ANCHORS", "TARGETS", "Detector", "Level", "Tap", "detector_for"]

_ADAPTERS = (
    DETR, FCOS, GFL, ONNX, PicoDet, PPYOLOE, RCNN, RepPoints, RetinaNet, RTMDet, SOLO, SOLOv2, TOOD, ViT, YOLOv3,
    YOLOX,
)  # fmt: skip


def detector_for(model):
    """The adapter for a ppdet model; the generic one knows ``backbone[i]`` and ``neck[i]`` of anything with a neck."""
    for adapter in _ADAPTERS:
        if adapter.fits(model):
            return adapter(model)
    return Detector(model)
