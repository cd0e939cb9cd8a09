"""GFL and PicoDet: class logits and, for each edge of a box, the logits of a distribution over distances."""

from functools import partial

import paddle.nn.functional as F

from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import channels, expected_distances
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Rung, Tower, apply_pooled, convolutions

# Activations by the names that a config has for them; of any other name the head makes none.
_ACTIVATIONS = {"leaky_relu": F.leaky_relu, "hard_swish": F.hardswish, "relu6": F.relu6}


class _Distributions(Detector):
    """What the two have in common."""

    @property
    def cell_offset(self):
        return self.head.cell_offset

    @property
    def num_classes(self):
        return self.head.cls_out_channels


class GFL(_Distributions):
    """Adds ``head.cls[i]`` (class logits), ``head.box_dist[i]`` (logits of the edge distributions), ``head.ltrb[i]``
    (their expectations) and the towers.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "GFL"

    def aliases(self):
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap("head.gfl_head_cls", call=i),
            "head.box_dist": self._scaled,
            "head.ltrb": partial(self._scaled, derive=expected_distances),
        }

    def towers(self):
        classes, boxes = convolutions("head.conv_feat", self.head.conv_feat)
        return {
            "head.cls": Tower("head.cls_tower", classes),
            "head.box_dist": Tower("head.box_tower", boxes, lambda i: [Tap("head.gfl_head_reg", call=i)]),
        }

    def _scaled(self, i, derive=None):
        # The convolutions are shared by the levels; what scales their output is not.
        scales = [name for name, _ in self.head.named_children() if name.startswith("p") and name.endswith("_feat")]
        return Tap(f"head.{scales[i]}", derive=derive) if i < len(scales) else None

    def run_head(self, features, batch):
        # Its own forward would go on to decode boxes in eval mode, on a grid whose size the host has to wait for.
        for feature, scale in zip(features, self.head.scales_regs):
            classes, edges = self.head.conv_feat(feature)
            self.head.gfl_head_cls(classes)
            scale(self.head.gfl_head_reg(edges))


class PicoDet(_Distributions):
    """Adds ``head.cls[i]``, ``head.box_dist[i]``, ``head.ltrb[i]`` and the towers as `GFL` does.

    Both may come out of one convolution. The released models' head aligns its class scores afterwards.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "PicoDet" and type(model.head).__name__ in ("PicoHead", "PicoHeadV2")

    def aliases(self):
        if type(self.head).__name__ == "PicoHead" and self.head.conv_feat.share_cls_reg:
            count = self.head.cls_out_channels
            classes = edges = "head.head_cls"
            parts = (
                partial(channels, begin=0, end=count),
                partial(channels, begin=count, end=None),
                partial(expected_distances, begin=count),
            )
        else:
            classes, edges = "head.head_cls", "head.head_reg"
            parts = (None, None, expected_distances)
        paths = (classes, edges, edges)
        names = ("head.cls", "head.box_dist", "head.ltrb")
        found = {name: partial(self._output, path, part) for name, path, part in zip(names, paths, parts)}
        return {**super().aliases(), **found}

    def towers(self):
        feature, released = self.head.conv_feat, type(self.head).__name__ == "PicoHeadV2"
        derive = _ACTIVATIONS.get(feature.act)
        paths = [f"cls_conv_{kind}{{}}.{k}" for k in range(feature.num_convs) for kind in ("dw", "pw")]
        first = second = tuple(Rung(partial(self._layer, path, derive)) for path in paths)
        if feature.use_se:
            second = (*first, Rung(partial(self._layer, "se.{}", derive), apply_pooled))
        elif not feature.share_cls_reg:
            # Each layer of ppdet's box branch begins anew from the class branch's, so that only the last one counts.
            second = (*first, Rung(partial(self._layer, f"reg_conv_pw{{}}.{feature.num_convs - 1}", derive)))
        return {
            "head.cls": Tower("head.cls_tower", second if released else first),
            "head.box_dist": Tower("head.box_tower", first if feature.share_cls_reg and not released else second),
        }

    @staticmethod
    def _output(path, derive, i):
        return Tap(f"{path}{i}", derive=derive)

    @staticmethod
    def _layer(path, derive, i):
        return Tap(f"head.conv_feat.{path.format(i)}", derive=derive)

    def run_head(self, features, batch):
        # In eval mode the head would go on to decode boxes on the grid of its eval_size.
        self.head.forward_train(features)
