"""SOLO's heads: a class and a mask for every cell of a grid a level (arXiv 1912.04488, section 3)."""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.core.workspace import register

from ppkd.errors import UserError
from ppkd.losses.common import full_precision, up
from ppkd.losses.focal import sigmoid_focal
from ppkd.models.towers import conv, tower

# Added to what the class loss is divided by; the smallest float32 above 1, less 1, as in the reference.
_EPS = 1.1920929e-7
_DICE = 1e-3
_PRIOR = 0.01


@register
class SOLOHead(nn.Layer):
    """One tower for the classes of a grid's cells, one for their masks; the levels share both.

    Args:
        num_classes: C.
        in_channels: of the neck's maps, all alike.
        feat_channels: of the towers.
        stacked_convs: layers of a tower.
        strides: of the head's maps, in pixels: the neck's first map is reduced, its last one enlarged.
        num_grids: cells on either side, of each level; the reader's `Gt2SOLOTarget` has to say the same.
        cls_down_index: the class tower's layer before which a map becomes a grid.
        norm_groups: of the towers' group norms.
        loss_weight: factors ``mask`` and ``class``.
        score_threshold: least class score of a cell.
        mask_threshold: probability from which on a pixel belongs to a mask.
        nms: what ends post-processing.
    """

    __shared__ = ["num_classes"]
    __inject__ = ["nms"]

    def __init__(
        self, num_classes=80, in_channels=256, feat_channels=256, stacked_convs=7, strides=(8, 8, 16, 32, 32),
        num_grids=(40, 36, 24, 16, 12), cls_down_index=0, norm_groups=32, loss_weight=None, score_threshold=0.1,
        mask_threshold=0.5, nms="SOLOMatrixNMS",
    ):  # fmt: skip
        super().__init__()
        self.num_classes, self.strides, self.num_grids = num_classes, list(strides), list(num_grids)
        self.cls_down_index, self.nms = cls_down_index, nms
        self.loss_weight = {"mask": 3.0, "class": 1.0, **(loss_weight or {})}
        self.score_threshold, self.mask_threshold = score_threshold, mask_threshold
        self._make_masks(in_channels, feat_channels, stacked_convs, norm_groups)
        self.cls_convs = tower(in_channels, feat_channels, stacked_convs, norm_groups)
        self.conv_cls = conv(feat_channels, num_classes, 3, -math.log((1 - _PRIOR) / _PRIOR))

    def _make_masks(self, in_channels, channels, depth, groups):
        self.mask_convs = tower(in_channels + 2, channels, depth, groups)
        self.conv_mask_list = nn.LayerList([conv(channels, grid**2, 1) for grid in self.num_grids])

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"in_channels": input_shape[0].channels}

    def forward(self, features):
        """Mask and class logits of the neck's maps, from the one of stride 4 on.

        Returns:
            List of what `mask_logits` gives, maps of half the strides, and list of class logits (N, C, G, G).
        """
        features = list(features)
        features[0] = _resized(features[0], paddle.shape(features[1])[2:])
        features[-1] = _resized(features[-1], paddle.shape(features[-2])[2:])
        levels = range(len(features))
        return [self.mask_logits(x, k) for k, x in enumerate(features)], [
            self._classes(features[k], self.num_grids[k]) for k in levels
        ]

    def _classes(self, x, grid):
        for k, layer in enumerate(self.cls_convs):
            x = layer(_resized(x, [grid, grid]) if k == self.cls_down_index else x)
        return self.conv_cls(x)

    def mask_logits(self, x, level):
        """(N, G * G, h, w): a map for every cell, row by row."""
        return self._masks(paddle.concat([x, *_coordinates(x)], axis=1), self.mask_convs, self.conv_mask_list[level])

    def _masks(self, x, layers, last):
        for layer in layers:
            x = layer(x)
        height, width = paddle.shape(x)[2] * 2, paddle.shape(x)[3] * 2
        return last(_resized(x, [height, width]))

    def probabilities(self, maps, images, cells, level, size=None):
        """The masks of some cells.

        Args:
            maps: of `mask_logits`.
            images, cells: (P,) int64: which of the batch, and row * G + column.
            level: its index.
            size: height and width to enlarge them to; None for none.

        Returns:
            (P, h, w).
        """
        masks = F.sigmoid(up(paddle.gather_nd(maps, paddle.stack([images, cells], axis=1))))
        return masks if size is None else _resized(masks.unsqueeze(1), size).squeeze(1)

    @full_precision
    def get_loss(self, outputs, targets):
        """``loss_mask`` and ``loss_cls`` of what `forward` returns.

        Args:
            outputs: masks and classes, of `forward`.
            targets: the batch as ``Gt2SOLOTarget`` makes it.

        Raises:
            UserError: the reader made no such targets, or for other grids.
        """
        self._check(targets)
        masks, classes = outputs
        logits, wanted, dice = [], [], []
        for k, (maps, kinds) in enumerate(zip(masks, classes)):
            labels, objects = targets[f"solo_labels{k}"].flatten(1), targets[f"solo_cells{k}"].flatten(1)
            logits.append(up(kinds).flatten(2).transpose([0, 2, 1]))
            background = paddle.full_like(labels, self.num_classes)
            wanted.append(paddle.where(labels < 0, background, labels))
            place = paddle.nonzero(objects >= 0)
            if place.shape[0]:
                true = paddle.stack([place[:, 0], paddle.gather_nd(objects, place)], axis=1)
                true = paddle.gather_nd(targets[f"solo_masks{k}"], true).astype("float32")
                dice.append(_dice(self.probabilities(maps, place[:, 0], place[:, 1], k), true))
        count = sum(len(x) for x in dice)
        unused = sum(up(x).mean() for maps in masks for x in (maps if isinstance(maps, tuple) else (maps,))) * 0.0
        loss_mask = paddle.concat(dice).mean() + unused if dice else unused
        hot = F.one_hot(paddle.concat(wanted, axis=1), self.num_classes + 1)[..., :-1]
        loss_cls = sigmoid_focal(paddle.concat(logits, axis=1), hot).sum() / (count + 1 + _EPS)
        return {"loss_mask": self.loss_weight["mask"] * loss_mask, "loss_cls": self.loss_weight["class"] * loss_cls}

    def _check(self, targets):
        grids = [int(targets[f"solo_labels{k}"].shape[-1]) for k in range(99) if f"solo_labels{k}" in targets]
        if grids != self.num_grids:
            raise UserError(
                f"SOLO's head has the grids {self.num_grids}, TrainReader's batch_transforms "
                + (f"{grids}" if grids else "no Gt2SOLOTarget")
                + ": num_grids has to be the same in both"
            )

    def detect(self, masks, classes, shape, size):
        """The masks of the first image of a batch.

        Args:
            masks, classes: of `forward`.
            shape: (2,) int32, height and width of the image in the network's input.
            size: (2,) int32, of the image itself.

        Returns:
            Masks (D, H, W) uint8 in the image's size, classes (D,) and scores (D,), the best first. The last one means
            nothing and has the score 0, as ppdet has it of SOLOv2: so there is always one.
        """
        first = masks[0][0] if isinstance(masks[0], tuple) else masks[0]
        fine = paddle.shape(first)[2:]
        scores = [peaks(F.sigmoid(up(x[:1]))) for x in classes]
        found = self.candidates(
            scores, lambda k, cells: self.probabilities(masks[k], paddle.zeros_like(cells), cells, k, fine)
        )
        probabilities, labels, scores = self.choose(*found)
        return self.whole(probabilities, shape, size), labels, scores

    def whole(self, probabilities, shape, size):
        """Masks (D, H, W) uint8 in an image's size, of probabilities (D, h, w) of the padded input's fourth part."""
        fine = paddle.shape(probabilities)[1:]
        large = _resized(probabilities.unsqueeze(0), fine * 4)[:, :, : shape[0], : shape[1]]
        return (_resized(large, size).squeeze(0) > self.mask_threshold).astype("uint8")

    def candidates(self, scores, masks_of):
        """The masks of all cells with a score above the threshold, with one without meaning behind each level's.

        Args:
            scores: list of (1, C, G, G), one entry a level.
            masks_of: function of a level's index and cells (P,) to masks (P, h, w), of one size for all levels.

        Returns:
            Probabilities (M, h, w), masks of 0 and 1 (M, h, w), classes (M,) and scores (M,): a class score times the
            mean probability within the mask; 0 for a mask that is not larger, in pixels, than its level's stride.
        """
        found = []
        for k, level in enumerate(scores):
            flat = level[0].flatten(1).t()
            place = paddle.nonzero(flat > self.score_threshold)
            real = paddle.concat([paddle.gather_nd(flat, place) if _some(place) else flat[:0, 0],
                                  paddle.zeros([1], flat.dtype)])  # fmt: skip
            place = paddle.concat([place, paddle.zeros([1, 2], "int64")])
            probabilities = masks_of(k, place[:, 0])
            inside = (probabilities > self.mask_threshold).astype(probabilities.dtype)
            area = inside.sum(axis=[1, 2])
            mean = (probabilities * inside).sum(axis=[1, 2]) / area.clip(min=1.0)
            large = (area > self.strides[k]).astype(mean.dtype)
            found.append((probabilities, inside, place[:, 1], real * mean * large))
        return [paddle.concat(parts) for parts in zip(*found)]

    def choose(self, probabilities, masks, labels, scores):
        """What NMS leaves of `candidates`: probabilities, classes and scores, the best first."""
        kept, scores = self.nms(masks, labels, scores)
        return paddle.gather(probabilities, kept), paddle.gather(labels, kept), scores


@register
class DecoupledSOLOHead(SOLOHead):
    """Masks as products of a map for the cell's column and one for its row (arXiv 1912.04488, section 3.4).

    Args: those of `SOLOHead`.
    """

    def _make_masks(self, in_channels, channels, depth, groups):
        for axis in "xy":
            setattr(self, f"mask_convs_{axis}", tower(in_channels + 1, channels, depth, groups))
            layers = [conv(channels, grid, 3) for grid in self.num_grids]
            setattr(self, f"conv_mask_list_{axis}", nn.LayerList(layers))

    def mask_logits(self, x, level):
        """A pair of (N, G, h, w): of columns and of rows."""
        return tuple(
            self._masks(
                paddle.concat([x, places], axis=1),
                getattr(self, f"mask_convs_{axis}"),
                getattr(self, f"conv_mask_list_{axis}")[level],
            )
            for axis, places in zip("xy", _coordinates(x))
        )

    def probabilities(self, maps, images, cells, level, size=None):
        grid = self.num_grids[level]
        halves = (
            super(DecoupledSOLOHead, self).probabilities(side, images, place, level, size)
            for side, place in zip(maps, (cells % grid, cells // grid))
        )
        columns, rows = halves
        return columns * rows


def peaks(scores):
    """Scores (N, C, G, G) that are the largest of a cell, the one above, the one to the left and the one between."""
    around = F.max_pool2d(F.pad(scores, [1, 0, 1, 0]), 2, stride=1)
    return scores * (scores == around).astype(scores.dtype)


def _dice(masks, true):
    """(P,): 1 - 2 sum(p t) / (sum p^2 + sum t^2), after Milletari et al., V-Net."""
    masks, true = masks.flatten(1), true.flatten(1)
    size = masks.square().sum(axis=1) + true.square().sum(axis=1) + 2 * _DICE
    return 1 - 2 * (masks * true).sum(axis=1) / size


def _coordinates(x):
    """(N, 1, h, w) of x and of y, from -1 at the first column or row to 1 at the last."""
    batch, _, height, width = paddle.shape(x)
    across = paddle.linspace(-1, 1, width, dtype=x.dtype).reshape([1, 1, 1, -1]).expand([batch, 1, height, width])
    down = paddle.linspace(-1, 1, height, dtype=x.dtype).reshape([1, 1, -1, 1]).expand([batch, 1, height, width])
    return across, down


def _resized(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _some(place):
    return place.shape[0] != 0
