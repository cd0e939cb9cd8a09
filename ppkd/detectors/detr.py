"""DETR and its kin (Deformable DETR, DINO, RT-DETR): maps of the encoder, and sets of predictions of each layer.

Layers of the decoder are counted from 0. Class logits are binary ones, a class at a time, whatever the model has: of a
softmax with a background they are the log odds of each class. Boxes are centre and size as shares of the image.
"""

import contextlib
import math
from functools import partial

import paddle
import paddle.nn.functional as F

from ppkd.detectors.base import Detector
from ppkd.detectors.queries import ASKED
from ppkd.detectors.taps import Tap

# ppdet keeps reference points that far from 0 and 1 before it takes their log odds.
_EPS = 1e-5


class DETR(Detector):
    """Adds ``neck.encoder`` (map of the encoder's deepest level), and of the decoder's layer k ``decoder.cls[k]``
    (N, Q, C), ``decoder.box[k]`` (N, Q, 4) and ``decoder.query[k]`` (N, Q, channels); ``decoder.reference`` are the
    first boxes or points. Queries that a student denoises are left out.

    Without a neck, ``neck[i]`` are the projected maps that the encoder is given.
    """

    head_name = "detr_head"

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "DETR" and hasattr(model, "transformer") and hasattr(model, "detr_head")

    def aliases(self):
        found = super().aliases()
        found |= self._maps(type(self._transformer).__name__)
        return found | self._sets(type(self._transformer).__name__)

    @property
    def _transformer(self):
        return self.model.transformer

    def _maps(self, kind):
        if kind == "DETRTransformer":
            return {
                "neck": lambda i: Tap("transformer.input_proj") if i == 0 else None,
                "neck.encoder": lambda i: Tap("transformer", item=1) if i == 0 else None,
            }
        if (neck := getattr(self.model, "neck", None)) is None:
            last = len(self._transformer.input_proj) - 1
            tokens = Tap("transformer.encoder", derive=_last_map, beside=Tap(f"transformer.input_proj.{last}"))
            return {
                "neck": lambda i: Tap(f"transformer.input_proj.{i}") if i <= last else None,
                "neck.encoder": lambda i: tokens if i == 0 else None,
            }
        maps = {}
        if getattr(neck, "lateral_convs", None):  # the first of them is given the deepest map, behind its encoder
            maps["neck.encoder"] = lambda i: Tap("neck.lateral_convs.0", argument=0) if i == 0 else None
        if hasattr(neck, "mask_feat_head"):  # which returns its maps in a list, and the masks' features
            levels = len(neck.in_channels)
            maps["neck"] = lambda i: Tap("neck", derive=partial(_item, i=i)) if i < levels else None
        return maps

    def _sets(self, kind):
        decoder = self._transformer.decoder
        count, queries = len(decoder.layers), getattr(self._transformer, "num_queries", None)
        layer = partial(_per_layer, count)
        if not getattr(decoder, "return_intermediate", True):
            return {}
        groups = 1 + (getattr(self._transformer, "dual_groups", 0) or 0)
        found = {"decoder.query": lambda k: _query(count, queries, groups, k)}
        if kind in ("DETRTransformer", "DeformableTransformer"):
            classes = partial(_of_layer, after=_log_odds if _of_softmax(self.head) else None)
            found["decoder.cls"] = layer("detr_head.score_head", 0, classes)
            if kind == "DETRTransformer":
                found["decoder.box"] = layer("detr_head.bbox_head", 0, partial(_of_layer, after=F.sigmoid))
            else:
                points = Tap("transformer.reference_points")
                found["decoder.box"] = layer("detr_head.bbox_head", 0, _boxes_at_points, beside=points)
                found["decoder.reference"] = lambda i: Tap("transformer", item=2) if i == 0 else None
            return found
        # Mask-RT-DETR has the two the other way round, and no first boxes at this place.
        masks = kind == "MaskRTDETR"
        cut = partial(_of_layer, queries=queries, groups=groups)
        found["decoder.cls"] = layer("transformer", not masks, cut)
        found["decoder.box"] = layer("transformer", masks, cut)
        if not masks:
            found["decoder.reference"] = lambda i: Tap("transformer", item=2) if i == 0 else None
        return found

    @property
    def num_classes(self):
        """Number of classes of ``decoder.cls[k]``."""
        classes = getattr(self._transformer, "num_classes", None)  # others predict in the head
        if classes is None:
            classes = self.head.num_classes - int(_of_softmax(self.head))
        return classes

    @property
    def asked(self):
        """`queries.Asked` of the decoder, or None for one that is not known."""
        kind = ASKED.get(type(self._transformer).__name__)
        return kind(self._transformer, self.head) if kind else None

    def redecode(self, recorder, queries, mask=None):
        """What the decoder makes of other queries (see `queries.Asked.decode`): by the names of its sources."""
        with self._as_in_training():
            classes, boxes = self.asked.decode(recorder, queries, mask)
        classes = _log_odds(classes) if _of_softmax(self.head) else classes
        sides = {"cls": classes, "box": boxes}
        return {f"decoder.{name}[{k}]": layer for name, made in sides.items() for k, layer in enumerate(made)}

    def run(self, batch, parts):
        with self._as_in_training():
            super().run(batch, parts)

    def run_head(self, features, batch):
        made = self._transformer(features, batch.get("pad_mask"), batch)
        if hasattr(self.head, "score_head"):  # others predict in the transformer
            self.head.score_head(made[0])
            self.head.bbox_head(made[0])

    @contextlib.contextmanager
    def _as_in_training(self):
        """Inside, position embeddings and anchors are made for the batch's size, not for ``eval_size``, and RT-DETR's
        decoder returns all layers, not one. No module drops or normalises otherwise than in eval mode.
        """
        parts = [getattr(self.model, name, None) for name in ("neck", "transformer")]
        sized = [(part, part.eval_size) for part in parts if getattr(part, "eval_size", None) is not None]
        decoder = self._transformer.decoder
        training = decoder.training
        for part, _ in sized:
            part.eval_size = None
        if hasattr(decoder, "eval_idx"):
            decoder.training = True
        try:
            yield
        finally:
            decoder.training = training
            for part, size in sized:
                part.eval_size = size


def _of_softmax(head):
    """Whether its classes are those of a softmax with a background, as DETR's are unless it has the focal loss."""
    return not getattr(head, "use_focal_loss", True)


def _per_layer(count, path, item, derive, beside=None):
    """Alias: the `Tap` of what a module returns for all `count` layers at once, cut down to one."""
    return lambda k: Tap(path, item=int(item), derive=partial(derive, k=k), beside=beside) if k < count else None


def _query(count, queries, groups, k):
    derive = partial(_own, queries=queries, groups=groups)
    return Tap(f"transformer.decoder.layers.{k}", derive=derive) if k < count else None


def _own(x, queries=None, groups=1):
    """The model's own `queries` among (N, Q, C): those before them are denoised, and where training has several groups
    of queries, the first is that of evaluation."""
    if queries is None or x.shape[1] == queries:
        return x
    end = x.shape[1] // groups
    return x[:, end - queries : end]


def _of_layer(x, k, queries=None, groups=1, after=None):
    """Layer k of (layers, N, Q, C)."""
    x = _own(x[k], queries, groups)
    return after(x) if after else x


def _boxes_at_points(x, points, k):
    """Deformable DETR's boxes of layer k: (layers, N, Q, 4) of offsets from (N, Q, 2) log odds of points."""
    far = math.log((1 - _EPS) / _EPS)
    return F.sigmoid(paddle.concat([x[k][..., :2] + points.clip(-far, far), x[k][..., 2:]], axis=-1))


def _log_odds(x):
    """(N, Q, C + 1) logits of a softmax, the background last, as (N, Q, C) logits of sigmoids of the same scores."""
    x = x.astype("float32")
    odds = F.log_softmax(x, axis=-1) - (1 - F.softmax(x, axis=-1)).clip(min=1e-6).log()
    return odds[..., :-1]


def _last_map(tokens, like):
    """The last level of (N, T, C) tokens of all levels as a map of the size of `like` (N, C, H, W)."""
    height, width = like.shape[2:]
    last = tokens[:, -height * width :].transpose([0, 2, 1])
    return last.reshape([last.shape[0], last.shape[1], height, width])


def _item(x, i):
    return x[i]
