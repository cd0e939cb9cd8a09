"""RepPoints' head: points that say where an object is, refined once (arXiv 1904.11490, section 4)."""

import math

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr, nn
from paddle.nn.initializer import Constant, Normal
from paddle.vision.ops import DeformConv2D
from ppdet.core.workspace import register

from ppkd.errors import UserError
from ppkd.losses.boxes import cell_points
from ppkd.losses.common import full_precision, up
from ppkd.losses.focal import sigmoid_focal
from ppkd.models.reppoints.assigners import assign_boxes, assign_points
from ppkd.models.reppoints.points import moment_boxes, regular_grid, valid_places
from ppkd.models.selection import best
from ppkd.models.towers import conv, tower

# Added to what the losses are divided by; the smallest float32 above 1, less 1, as in the reference.
_EPS = 1.1920929e-7
_PRIOR = 0.01
_SIDE = 3


@register
class RepPointsHead(nn.Layer):
    """Two towers and nine points a cell, whose first places tell the deformable convolutions where to look.

    A cell's point is its upper left corner; outputs are in strides from there. All levels share all layers.

    Args:
        num_classes: C.
        in_channels: of the neck's maps, all alike.
        fpn_strides: of these maps, powers of two.
        feat_channels: of the towers.
        point_feat_channels: of the layers behind them.
        stacked_convs: layers of a tower.
        norm_groups: of the towers' group norms; 0 for none.
        gradient_mul: factor on the gradient from the deformable convolutions to the first points.
        moment_mul: factor on the gradient of the factors between deviation and box.
        point_base_scale: so many strides the box losses measure with.
        assign_scale: a box of so many strides has the level of that stride at first.
        positive_number: of points that a box takes at first.
        thresholds: IoU from which on, and below which, a refined point has a box or none.
        loss_weight: factors ``class``, ``init`` and ``refine``.
        beta: where the smooth L1 loss becomes linear.
        pad_divisor: images count as padded to multiples of it, each for itself.
        nms: what ends post-processing.
        nms_pre: so many scores of a level, over all classes, go into it.
    """

    __shared__ = ["num_classes"]
    __inject__ = ["nms"]

    def __init__(
        self, num_classes=80, in_channels=256, fpn_strides=(8, 16, 32, 64, 128), feat_channels=256,
        point_feat_channels=256, stacked_convs=3, norm_groups=32, gradient_mul=0.1, moment_mul=0.01,
        point_base_scale=4, assign_scale=4, positive_number=1, thresholds=(0.5, 0.4), loss_weight=None,
        beta=0.11, pad_divisor=32, nms="MultiClassNMS", nms_pre=1000,
    ):  # fmt: skip
        super().__init__()
        self.num_classes, self.fpn_strides = num_classes, [int(stride) for stride in fpn_strides]
        self.gradient_mul, self.moment_mul = gradient_mul, moment_mul
        self.point_base_scale, self.assign_scale = point_base_scale, assign_scale
        self.positive_number, self.thresholds = positive_number, thresholds
        self.loss_weight = {"class": 1.0, "init": 0.5, "refine": 1.0, **(loss_weight or {})}
        self.beta, self.pad_divisor, self.nms, self.nms_pre = beta, pad_divisor, nms, nms_pre
        self.cls_convs = tower(in_channels, feat_channels, stacked_convs, norm_groups)
        self.reg_convs = tower(in_channels, feat_channels, stacked_convs, norm_groups)
        points = 2 * _SIDE**2
        self.reppoints_cls_conv = _deformable(feat_channels, point_feat_channels)
        self.reppoints_cls_out = conv(point_feat_channels, num_classes, 1, -math.log((1 - _PRIOR) / _PRIOR))
        self.reppoints_pts_init_conv = conv(feat_channels, point_feat_channels, 3)
        self.reppoints_pts_init_out = conv(point_feat_channels, points, 1)
        self.reppoints_pts_refine_conv = _deformable(feat_channels, point_feat_channels)
        self.reppoints_pts_refine_out = conv(point_feat_channels, points, 1)
        self.moment_transfer = self.create_parameter([2], ParamAttr(initializer=Constant(0.0)))

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"in_channels": input_shape[0].channels, "fpn_strides": [x.stride for x in input_shape]}

    def forward(self, features):
        """Class logits and points of the neck's maps.

        Returns:
            Three lists, one entry a level: logits (N, C, H, W), first and refined points (N, 18, H, W), ordered
            y1 x1 y2 x2 and so on, in strides.
        """
        return tuple(list(maps) for maps in zip(*(self._level(feature) for feature in features)))

    def _level(self, x):
        classes = points = x
        for layer in self.cls_convs:
            classes = layer(classes)
        for layer in self.reg_convs:
            points = layer(points)
        first = self.reppoints_pts_init_out(F.relu(self.reppoints_pts_init_conv(points)))
        offsets = first.detach() * (1 - self.gradient_mul) + first * self.gradient_mul - regular_grid(_SIDE)
        classes = self.reppoints_cls_out(F.relu(self.reppoints_cls_conv(classes, offsets)))
        step = self.reppoints_pts_refine_out(F.relu(self.reppoints_pts_refine_conv(points, offsets)))
        return classes, first, step + first.detach()

    def boxes(self, points):
        """Boxes (N, 4, H, W) of points (N, 18, H, W), in strides from the cells' points."""
        return moment_boxes(up(points), self.moment_transfer, self.moment_mul)

    def decode(self, outputs, sizes):
        """Boxes and scores of what `forward` returns; a score that does not take part is zero.

        Args:
            outputs: of `forward`.
            sizes: (N, 2) heights and widths of the images in the network's input.

        Returns:
            Boxes (N, P, 4) in pixels of the network's input, within the image, and scores (N, C, P).
        """
        classes, _, refined = outputs
        boxes = paddle.concat(self._in_pixels(self.boxes(x) for x in refined), axis=1)
        limits = sizes.astype("float32").flip(-1).tile([1, 2]).unsqueeze(1)
        boxes = paddle.minimum(boxes.clip(min=0.0), limits)
        scores = paddle.concat([best(F.sigmoid(up(x)).flatten(2), self.nms_pre) for x in classes], axis=2)
        there = (boxes[..., 2:] > boxes[..., :2]).all(axis=2).astype(scores.dtype)
        return boxes, scores * there.unsqueeze(1)

    def _in_pixels(self, boxes):
        """A list of (N, P, 4), one entry a level, of boxes (N, 4, H, W) in strides."""
        found = []
        for x, stride in zip(boxes, self.fpn_strides):
            points = cell_points([x.shape[2:]], [stride], 0.0)[0]
            found.append(x.flatten(2).transpose([0, 2, 1]) * stride + points.tile([1, 2]))
        return found

    @full_precision
    def get_loss(self, outputs, targets):
        """``loss_cls``, ``loss_pts_init`` and ``loss_pts_refine``: `level_losses`, added up."""
        return {name: paddle.add_n(levels) for name, levels in self.level_losses(outputs, targets).items()}

    def level_losses(self, outputs, targets):
        """The three losses of each level, as lists.

        Args:
            outputs: of `forward`.
            targets: ppdet's batch: ``gt_class`` (N, G, 1), ``gt_bbox`` (N, G, 4), ``pad_gt_mask`` (N, G, 1), and the
                images' own padded sizes in ``pad_shape`` (N, 2), else ``im_shape`` (N, 2) to make them of.

        Raises:
            UserError: a batch without ``pad_gt_mask``: the reader lacks ``PadGT``.
        """
        classes, first, refined = ([up(x) for x in maps] for maps in outputs)
        first, refined = (self._in_pixels(self.boxes(x) for x in maps) for maps in (first, refined))
        lengths = [x.shape[1] for x in first]
        labels, taking_part, *stages = self.targets(classes, first, targets)
        scale = [stride * self.point_base_scale for stride in self.fpn_strides]
        names = (("loss_pts_init", first, "init"), ("loss_pts_refine", refined, "refine"))
        losses = {}
        divisors = [_positives(stage[1]) + _EPS for stage in stages]
        for (name, boxes, kind), (wanted, weights), divisor in zip(names, stages, divisors):
            parts = zip(boxes, wanted.split(lengths, axis=1), weights.split(lengths, axis=1), scale)
            factor = self.loss_weight[kind] / divisor
            losses[name] = [(self._box_loss((x - t) / unit) * w.unsqueeze(2)).sum() * factor for x, t, w, unit in parts]
        parts = zip(classes, labels.split(lengths, axis=1), taking_part.split(lengths, axis=1))
        factor = self.loss_weight["class"] / divisors[1]
        return {"loss_cls": [self._class_loss(*level) * factor for level in parts], **losses}

    def _box_loss(self, gap):
        gap = gap.abs()
        return paddle.where(gap < self.beta, gap.square() * (0.5 / self.beta), gap - self.beta / 2)

    def _class_loss(self, logits, labels, weights):
        logits = logits.flatten(2).transpose([0, 2, 1])
        wanted = F.one_hot(labels, self.num_classes + 1)[..., :-1]
        return (sigmoid_focal(logits, wanted) * weights.unsqueeze(2)).sum()

    @paddle.no_grad()
    def targets(self, classes, first, targets):
        """What the points of all levels learn, by `assign`.

        Returns:
            Labels (N, P) int64, C for background; their weights (N, P); and for either stage a pair of boxes
            (N, P, 4) in pixels and 1 for points that have one, else 0 (N, P).
        """
        which = self.assign(classes, first, targets)
        boxes, kinds = targets["gt_bbox"].astype("float32"), targets["gt_class"].squeeze(2).astype("int64")
        # Row 0 stands for no box.
        boxes = paddle.concat([paddle.zeros_like(boxes[:, :1]) if boxes.shape[1] else paddle.zeros([len(boxes), 1, 4]),
                               boxes], axis=1)  # fmt: skip
        kinds = paddle.concat([paddle.full([len(kinds), 1], self.num_classes, "int64"), kinds], axis=1)
        stages = []
        for stage in which[:2]:
            rows = stage.clip(min=0)
            stages.append((_rows(boxes, rows), (stage > 0).astype("float32")))
        labels = _rows(kinds, which[1].clip(min=0))
        return labels, (which[1] >= 0).astype("float32"), *stages

    @paddle.no_grad()
    def assign(self, classes, first, targets):
        """Indices (N, P) of both stages, -2 outside of the image, -1 ignored, 0 for no box, else 1 + the box's; and
        (N, P) the second stage's best IoU.

        Args:
            classes: maps of all levels, for their sizes.
            first: list of the first boxes (N, P, 4) in pixels, one entry a level.
            targets: as for `level_losses`.
        """
        if "pad_gt_mask" not in targets:
            raise UserError("RepPoints needs boxes of one number an image: end TrainReader's batch_transforms by PadGT")
        sizes = [x.shape[2:] for x in classes]
        points = paddle.concat(cell_points(sizes, self.fpn_strides, 0.0))
        levels = paddle.concat(
            [paddle.full([h * w], int(math.log2(s)), "int64") for (h, w), s in zip(sizes, self.fpn_strides)]
        )
        padded = targets.get("pad_shape")
        if padded is None:
            padded = paddle.ceil(targets["im_shape"] / self.pad_divisor) * self.pad_divisor
        candidates, found = paddle.concat(first, axis=1), []
        valid = valid_places(sizes, self.fpn_strides, padded)
        for i, inside in enumerate(valid):
            boxes, real = targets["gt_bbox"][i].astype("float32"), targets["pad_gt_mask"][i].flatten() > 0
            initial = assign_points(points, levels, inside, boxes, real, self.assign_scale, self.positive_number)
            refined, ious = assign_boxes(candidates[i], inside, boxes, real, *self.thresholds)
            outside = paddle.full_like(initial, -2)
            found.append((paddle.where(inside, initial, outside), paddle.where(inside, refined, outside), ious))
        return [paddle.stack(rows) for rows in zip(*found)]


def _positives(weights):
    """Number of points with a box, at least one an image."""
    return weights.sum(axis=1).clip(min=1.0).sum()


def _rows(table, index):
    """Rows (N, P, ...) of a table (N, G, ...) at `index` (N, P)."""
    batch = paddle.arange(len(table)).unsqueeze(1).expand(index.shape)
    return paddle.gather_nd(table, paddle.stack([batch, index], axis=2))


def _deformable(inputs, outputs):
    return DeformConv2D(
        inputs, outputs, _SIDE, padding=_SIDE // 2, weight_attr=ParamAttr(initializer=Normal(0.0, 0.01)),
        bias_attr=False,
    )  # fmt: skip
