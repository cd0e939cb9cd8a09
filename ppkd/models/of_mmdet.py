"""Heads of ppdet that choose their detections as MMDetection's do: for weights that come from there.

ppdet's own heads keep places by their best class, take roots of scores, average other numbers over a cascade's stages,
and leave boxes that reach out of the image as they are. Training, parameters and their names are ppdet's.
"""

import copy

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
from ppdet.core.workspace import register as known
from ppdet.data import transform
from ppdet.data.transform.operators import Resize, register_op
from ppdet.modeling.architectures import FCOS
from ppdet.modeling.bbox_utils import delta2bbox
from ppdet.modeling.heads import CascadeHead, FCOSHead, GFLHead, MaskHead, RetinaHead, YOLOXHead
from ppdet.modeling.heads.fcos_head import FCOSFeat
from ppdet.modeling.layers import ConvNormLayer
from ppdet.modeling.proposal_generator.rpn_head import RPNHead

from ppkd.models.selection import best

# Pairs of a place and a class that are kept of a level.
_PAIRS = 1000


def _found(nms, boxes, scores, sizes, scale_factor, factors=None):
    """Boxes and their number an image.

    Args:
        nms: `MultiClassNMS`.
        boxes, scores: of each level (N, P, 4) in pixels and (N, P, C).
        sizes: (N, 2) of the images before padding, to which boxes are cut.
        scale_factor: (N, 2), height first, by which the images were resized.
        factors: of each level (N, P, 1): they count once it is settled which scores are high enough.
    """
    scores = [best(x.transpose([0, 2, 1]), _PAIRS) for x in scores]
    boxes, scores = paddle.concat(boxes, axis=1), paddle.concat(scores, axis=2)
    limits = sizes.astype("float32").flip(-1).tile([1, 2]).unsqueeze(1)
    boxes = paddle.minimum(boxes.clip(min=0.0), limits)
    kept = (boxes[..., 2:] > boxes[..., :2]).all(axis=2).astype(scores.dtype).unsqueeze(1)
    if factors is not None:
        kept = kept * (scores > nms.score_threshold).astype(scores.dtype)
        kept = kept * paddle.concat(factors, axis=1).transpose([0, 2, 1])
        nms = copy.copy(nms)
        nms.score_threshold = 0.0
    boxes = boxes / scale_factor.flip(-1).tile([1, 2]).unsqueeze(1)
    return nms(boxes, scores * kept)


@known
class RetinaHeadOfMMDet(RetinaHead):
    """`RetinaHead` with the best pairs of a level, and boxes within the image."""

    def post_process(self, head_outputs, im_shape, scale_factor):
        boxes, scores = [], []
        for anchors, classes, deltas in zip(self.anchor_generator(head_outputs[0]), *head_outputs):
            batch = classes.shape[0]
            scores.append(F.sigmoid(_rows(classes, self.num_classes)))
            rows = _rows(deltas, 4).flatten(0, 1)
            decoded = delta2bbox(rows, anchors.tile([batch, 1]), self.weights)
            boxes.append(decoded.reshape([batch, -1, 4]))
        return _found(self.nms, boxes, scores, im_shape, scale_factor)


@known
class GFLHeadOfMMDet(GFLHead):
    """`GFLHead` with the best pairs of a level, and boxes within the image."""

    def post_process(self, gfl_head_outs, im_shape, scale_factor):
        scores, boxes = gfl_head_outs
        return _found(self.nms, boxes, scores, im_shape, scale_factor)[:2]


@known
class FCOSHeadOfMMDet(FCOSHead):
    """`FCOSHead` whose class scores alone decide what is kept; the centerness lowers them afterwards."""

    def of_images(self, outputs, im_shape, scale_factor):
        """As `post_process`, which is not told the images' sizes."""
        boxes, scores, factors = [], [], []
        for points, classes, sides, centres in zip(*outputs):
            sides = _rows(sides, 4)
            boxes.append(paddle.concat([points - sides[..., :2], points + sides[..., 2:]], axis=2))
            scores.append(F.sigmoid(_rows(classes, self.num_classes)))
            factors.append(F.sigmoid(_rows(centres, 1)))
        return _found(self.nms, boxes, scores, im_shape, scale_factor, factors)[:2]


@known
class FCOSFeatOfMMDet(FCOSFeat):
    """`FCOSFeat` of whose towers the last convolution alone is deformable (``dcn_on_last_conv``), not all of them."""

    def __init__(self, feat_in=256, feat_out=256, num_convs=4, norm_type="bn"):
        super().__init__(feat_in, feat_out, num_convs, norm_type)
        width = feat_in if num_convs == 1 else feat_out
        for tower, convs in (("cls", self.cls_subnet_convs), ("reg", self.reg_subnet_convs)):
            last = ConvNormLayer(width, feat_out, 3, 1, norm_type=norm_type, use_dcn=True, bias_on=True, lr_scale=2.0)
            convs[-1] = self.add_sublayer(f"fcos_head_{tower}_tower_conv_{num_convs - 1}", last)


@known
class FCOSOfMMDet(FCOS):
    """`FCOS` that tells its head the images' sizes; ``fcos_head`` has to be `FCOSHeadOfMMDet`."""

    def get_pred(self):
        outputs = self.fcos_head(self.neck(self.backbone(self.inputs)))
        found = self.fcos_head.of_images(outputs, self.inputs["im_shape"], self.inputs["scale_factor"])
        return dict(zip(("bbox", "bbox_num"), found))


@known
class YOLOXHeadOfMMDet(YOLOXHead):
    """`YOLOXHead` with one class a place, and with objectness times class, not its root, as the score."""

    def post_process(self, head_outs, img_shape, scale_factor):
        roots, boxes, strides = head_outs
        scores = roots.square() * (roots >= roots.max(axis=2, keepdim=True)).astype(roots.dtype)
        # By its class: an exported graph of Paddle 2.6 knows no super().
        return YOLOXHead.post_process(self, (scores, boxes, strides), img_shape, scale_factor)


@known
class CascadeHeadOfMMDet(CascadeHead):
    """`CascadeHead` that averages its stages' logits, not their probabilities."""

    def get_prediction(self, head_out_list):
        logits = paddle.add_n([head[0] for head in head_out_list]) / self.num_cascade_stages
        _, deltas, rois = head_out_list[-1]
        return F.softmax(logits), deltas, rois


@known
class RPNHeadOfMMDet(RPNHead):
    """`RPNHead` whose regions may be narrower than a pixel, as long as there is something of them in the image.

    In exported graphs it is as ppdet's.
    """

    def _gen_proposal(self, scores, bbox_deltas, anchors, inputs):
        own = not (self.training or self.export_onnx) and paddle.in_dynamic_mode()
        found = self._own_regions if own else self._regions_of_ppdet
        return found(scores, bbox_deltas, anchors, inputs)

    # Under a name of its own: an exported graph of Paddle 2.6 knows no super().
    _regions_of_ppdet = RPNHead._gen_proposal

    def _own_regions(self, scores, bbox_deltas, anchors, inputs):
        rows = [[_rows(x, each) for x in maps] for maps, each in ((scores, 1), (bbox_deltas, 4))]
        found = [
            self._regions([level[i].flatten() for level in rows[0]], [level[i] for level in rows[1]], anchors, size)
            for i, size in enumerate(inputs["im_shape"])
        ]
        return found, paddle.to_tensor([len(boxes) for boxes in found], dtype="int32")

    def _regions(self, logits, deltas, anchors, size):
        """The best regions (R, 4) of an image."""
        how, boxes, scores = self.test_proposal, [], []
        limits = size.flip(-1).tile([2])
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors):
            best_scores, index = paddle.topk(F.sigmoid(level_logits), min(how.pre_nms_top_n, len(level_logits)))
            own = delta2bbox(paddle.gather(level_deltas, index), paddle.gather(level_anchors, index)).squeeze(1)
            own = paddle.minimum(own.clip(min=0.0), limits)
            there = paddle.nonzero((own[:, 2:] > own[:, :2]).all(axis=1)).flatten()
            if not len(there):
                continue
            own, best_scores = paddle.gather(own, there), paddle.gather(best_scores, there)
            kept = paddle.vision.ops.nms(own, how.nms_thresh, best_scores)
            boxes.append(paddle.gather(own, kept))
            scores.append(paddle.gather(best_scores, kept))
        if not boxes:
            return paddle.zeros([1, 4])
        boxes, scores = paddle.concat(boxes), paddle.concat(scores)
        return paddle.gather(boxes, paddle.argsort(scores, descending=True)[: how.post_nms_top_n])


@known
class CascadeMaskHeadOfMMDet(MaskHead):
    """`MaskHead` of all stages of a cascade: probabilities are their mean; it is the last stage's head that learns."""

    __shared__ = [*MaskHead.__shared__, "num_cascade_stages"]

    def __init__(
        self, head, roi_extractor=None, mask_assigner="MaskAssigner", num_classes=80, share_bbox_feat=False,
        export_onnx=False, num_cascade_stages=3,
    ):  # fmt: skip
        super().__init__(head, roi_extractor, mask_assigner, num_classes, share_bbox_feat, export_onnx)
        made = [paddle.nn.LayerDict({"head": copy.deepcopy(self.head), "logits": copy.deepcopy(self.mask_fcn_logits)})
                for _ in range(num_cascade_stages - 1)]  # fmt: skip
        self.earlier = paddle.nn.LayerList(made)
        for parameter in self.earlier.parameters():
            parameter.stop_gradient = True

    def forward_test(self, body_feats, rois, rois_num, scale_factor, feat_func=None):
        last = MaskHead.forward_test(self, body_feats, rois, rois_num, scale_factor, feat_func)
        if rois.shape[0] == 0:
            return last
        x, labels = self.roi_extractor(body_feats, [rois[:, 2:]], rois_num), rois[:, 0].astype("int32")
        places = paddle.stack([paddle.arange(paddle.shape(rois)[0]).astype("int32"), labels], axis=1)
        found = [F.sigmoid(paddle.gather_nd(one["logits"](one["head"](x)), places)) for one in self.earlier]
        return paddle.add_n([last, *found]) / (len(found) + 1)


def _rows(x, each):
    """(N, P, each) of a map (N, A * each, H, W), place by place."""
    return x.transpose([0, 2, 3, 1]).reshape([x.shape[0], -1, each])


@register_op
class ResizeOfMMDet(Resize):
    """`Resize` that keeps an image's shape, for evaluation.

    The size is rounded first, and pixels and boxes go by what came of that; ppdet's goes by the factor that was wanted.

    Args:
        target_size: the short side's and the long side's limits, in pixels.
        interp: OpenCV's number of the interpolation.
    """

    def __init__(self, target_size, interp=cv2.INTER_LINEAR):
        super().__init__(target_size, True, interp)

    def apply(self, sample, context=None):
        height, width = sample["image"].shape[:2]
        factor = min(max(self.target_size) / max(height, width), min(self.target_size) / min(height, width))
        size = max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)
        image = cv2.resize(sample["image"], size, interpolation=self.interp)
        shape, scale = [size[1], size[0]], [size[1] / height, size[0] / width]
        return {**sample, "image": image.astype("float32"), "im_shape": np.array(shape, "float32"),
                "scale_factor": np.array(scale, "float32")}  # fmt: skip


def register():
    """Tell ppdet's export of the architecture, which has FCOS's number, and its readers of the transform."""
    from ppdet.engine.export_utils import TRT_MIN_SUBGRAPH

    transform.ResizeOfMMDet = ResizeOfMMDet
    TRT_MIN_SUBGRAPH.setdefault("FCOSOfMMDet", TRT_MIN_SUBGRAPH.get("FCOS", 16))
