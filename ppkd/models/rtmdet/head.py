"""RTMDet's head: convolutions that all levels share, with batch norms of their own (arXiv 2212.07784, section 3.2)."""

import math

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, nn
from paddle.nn.initializer import Constant, Normal
from paddle.regularizer import L2Decay
from ppdet.core.workspace import register

from ppkd.losses.boxes import cell_points, corner_giou_loss
from ppkd.losses.common import full_precision
from ppkd.losses.focal import quality_focal
from ppkd.losses.ranks import averaged
from ppkd.models.selection import best, length

# Added to what the losses are divided by; the smallest float32 above 1, less 1, as in the reference.
_EPS = 1.1920929e-7
_PRIOR = 0.01


@register
class RTMDetHead(nn.Layer):
    """Two towers a level, one for classes and one for the distances to a box's edges.

    The point of a cell is its upper left corner, and distances are raw outputs times the stride: nothing keeps them
    positive, but for `exp_on_reg`.

    Args:
        num_classes: C.
        in_channels: of the neck's maps, all alike.
        fpn_strides: of these maps.
        stacked_convs: layers of a tower.
        assigner: which points learn which box.
        loss_weight: factors ``class`` and ``box``.
        beta: exponent of the quality focal loss.
        nms: what ends post-processing.
        nms_pre: so many of the scores of an image, over all classes, go into it.
        multi_label: whether a point may be a detection of several classes.
        exp_on_reg: whether distances are the exponential of the raw outputs, as in MMDetection's m, l and x.
    """

    __shared__ = ["num_classes"]
    __inject__ = ["assigner", "nms"]

    def __init__(
        self, num_classes=80, in_channels=256, fpn_strides=(8, 16, 32), stacked_convs=2,
        assigner="DynamicSoftLabelAssigner", loss_weight=None, beta=2.0, nms="MultiClassNMS", nms_pre=30000,
        multi_label=True, exp_on_reg=False,
    ):  # fmt: skip
        super().__init__()
        self.num_classes, self.fpn_strides = num_classes, list(fpn_strides)
        self.assigner, self.beta = assigner, beta
        self.loss_weight = {"class": 1.0, "box": 2.0, **(loss_weight or {})}
        self.nms, self.nms_pre, self.multi_label, self.exp_on_reg = nms, nms_pre, multi_label, exp_on_reg
        self.nms.return_index = True
        self._depth, self._shared = stacked_convs, True
        levels = range(len(self.fpn_strides))
        for branch in ("cls", "reg"):
            convs = [_conv(in_channels, in_channels, 3, bias=False) for _ in range(stacked_convs)]
            norms = [nn.LayerList([_norm(in_channels) for _ in range(stacked_convs)]) for _ in levels]
            setattr(self, f"{branch}_convs", nn.LayerList(convs))
            setattr(self, f"{branch}_norms", nn.LayerList(norms))
        bias = Constant(-math.log((1 - _PRIOR) / _PRIOR))
        self.rtm_cls = nn.LayerList([_conv(in_channels, num_classes, 1, bias) for _ in levels])
        self.rtm_reg = nn.LayerList([_conv(in_channels, 4, 1, Constant(0.0)) for _ in levels])

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"in_channels": input_shape[0].channels, "fpn_strides": [x.stride for x in input_shape]}

    def forward(self, features):
        """Logits and raw distances of the neck's maps.

        Returns:
            List of (N, C, H, W) and list of (N, 4, H, W): left, top, right, bottom in strides.
        """
        classes, distances = [], []
        for level, feature in enumerate(features):
            classes.append(self.rtm_cls[level](self._tower("cls", level, feature)))
            distances.append(self.rtm_reg[level](self._tower("reg", level, feature)))
        return classes, distances

    def _tower(self, branch, level, x):
        for k in range(self._depth):
            x = self.layer(branch, level, k, x)
        return x

    def layer(self, branch, level, k, x):
        """Layer `k` of the tower of a level; `branch` is ``cls`` or ``reg``."""
        conv = getattr(self, f"{branch}_convs")[k if self._shared else level * self._depth + k]
        return F.silu(getattr(self, f"{branch}_norms")[level][k](conv(x)))

    def convert_to_deploy(self):
        """Give each level convolutions of its own; ppdet calls it before an export.

        Paddle Inference works a norm into the weights of the convolution before it, in place: shared ones would be
        multiplied by the norms of all levels.
        """
        if not self._shared:
            return
        for branch in ("cls", "reg"):
            convs = getattr(self, f"{branch}_convs")
            copies = [_copy(conv) for _ in self.fpn_strides for conv in convs]
            setattr(self, f"{branch}_convs", nn.LayerList(copies))
        self._shared = False

    def decode(self, classes, distances):
        """Scores and boxes of what `forward` returns.

        Returns:
            Boxes (N, P, 4) in pixels of the network's input, and scores (N, C, P); P runs over levels, then rows.
        """
        boxes = self._boxes(distances, *self._points(distances))
        scores = F.sigmoid(paddle.concat([x.flatten(2) for x in classes], axis=2).astype("float32"))
        return boxes, scores

    def to_original(self, boxes, scale_factor):
        """Boxes (N, P, 4) in pixels of the image that was resized by `scale_factor` (N, 2), of height and width."""
        return boxes / scale_factor.flip(-1).tile([1, 2]).unsqueeze(1)

    def suppress(self, boxes, scores, sizes):
        """What is left after NMS, within the image.

        Args:
            boxes, scores: as `decode` and `to_original` return them.
            sizes: (N, 2) heights and widths of the images that the boxes refer to.

        Returns:
            (D, 6) rows ``class, score, x1, y1, x2, y2`` of all images, and how many each of them has.
        """
        found, counts, index = self.nms(boxes, self._best(scores))
        # Boxes are clipped last: what they overlap with does not depend on where the image ends.
        limits = paddle.round(sizes.astype("float32")).flip(-1).tile([1, 2])
        limits = paddle.concat([paddle.full_like(limits[:, :2], float("inf")), limits], axis=1)
        # Of no boxes at all Paddle 2 divides by a number, but not by a tensor.
        count = length(boxes)
        image = index.flatten() // (count if isinstance(count, int) else count.astype(index.dtype))
        return paddle.minimum(found.clip(min=0.0), paddle.gather(limits, image)), counts

    def _best(self, scores):
        """The scores (N, C, P) with those that do not take part set to zero."""
        if not self.multi_label:
            scores = scores * (scores == scores.max(axis=1, keepdim=True)).astype(scores.dtype)
        return best(scores, self.nms_pre)

    @full_precision
    def get_loss(self, outputs, targets):
        """``loss_cls`` and ``loss_bbox`` of what `forward` returns.

        Args:
            outputs: pair of lists, the levels' logits and raw distances.
            targets: ppdet's batch: ``gt_class`` (N, G, 1), ``gt_bbox`` (N, G, 4), ``pad_gt_mask`` (N, G, 1).

        Raises:
            KeyError: a batch without ``pad_gt_mask``: the reader lacks ``PadGT``.
        """
        classes, distances = outputs
        points, strides = self._points(distances)
        logits = paddle.concat([x.flatten(2) for x in classes], axis=2).transpose([0, 2, 1]).astype("float32")
        boxes = self._boxes(distances, points, strides)
        truth = (targets["gt_class"], targets["gt_bbox"], targets["pad_gt_mask"])
        labels, wanted, metrics = self.assigner(logits, boxes, points, strides, *truth)
        quality = F.one_hot(labels, self.num_classes + 1)[..., :-1] * metrics.unsqueeze(2)
        divisor = averaged(metrics.sum()).clip(min=1.0) + _EPS
        loss_cls = quality_focal(logits, quality, self.beta).sum() / divisor
        loss_box = self._box_loss(boxes, wanted, metrics) / divisor
        return {"loss_cls": self.loss_weight["class"] * loss_cls, "loss_bbox": self.loss_weight["box"] * loss_box}

    def _box_loss(self, boxes, wanted, metrics):
        """Sum of the GIoU losses of the points that have a box, weighted by `metrics`."""
        chosen = paddle.nonzero(metrics > 0)
        if chosen.shape[0] == 0:
            return boxes.sum() * 0.0
        boxes, wanted, weights = (paddle.gather_nd(x, chosen) for x in (boxes, wanted, metrics))
        return (corner_giou_loss(boxes, wanted) * weights).sum()

    def _points(self, maps):
        """Points (P, 2) in pixels, and their strides (P, 1)."""
        sizes = [x.shape[2:] for x in maps]
        points = cell_points(sizes, self.fpn_strides, 0.0)
        strides = [paddle.full_like(x[:, :1], stride) for x, stride in zip(points, self.fpn_strides)]
        return paddle.concat(points), paddle.concat(strides)

    def _boxes(self, distances, points, strides):
        raw = paddle.concat([x.flatten(2) for x in distances], axis=2).transpose([0, 2, 1]).astype("float32")
        left_top, right_bottom = ((raw.exp() if self.exp_on_reg else raw) * strides).split(2, axis=2)
        return paddle.concat([points - left_top, points + right_bottom], axis=2)


def _conv(inputs, outputs, kernel, bias):
    return nn.Conv2D(
        inputs, outputs, kernel, padding=kernel // 2, weight_attr=ParamAttr(initializer=Normal(0.0, 0.01)),
        bias_attr=bias and ParamAttr(initializer=bias),
    )  # fmt: skip


def _copy(conv):
    outputs, inputs, kernel, _ = conv.weight.shape
    copy = _conv(inputs, outputs, kernel, bias=False)
    copy.weight.set_value(conv.weight)
    return copy


def _norm(channels):
    undecayed = ParamAttr(regularizer=L2Decay(0.0))
    return nn.BatchNorm2D(channels, weight_attr=undecayed, bias_attr=undecayed)
