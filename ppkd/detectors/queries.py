"""What a decoder of DETR and its kin is asked: its queries, and a decoder run once more, on queries of others.

KD-DETR (Wang et al., CVPR 2024) asks two decoders the same. A query is content, and what says where to look: a box
(RT-DETR, DINO), a point and an embedding (Deformable DETR), or an embedding alone (DETR), whose content is zero.
"""

from dataclasses import dataclass, replace

import paddle
import paddle.nn.functional as F

from ppkd.detectors.taps import Tap
from ppkd.losses.sets import chosen

_DECODER = "transformer.decoder"
# ppdet keeps boxes that far from 0 and 1 before it takes their log odds.
_EPS = 1e-5
# Side of RT-DETR's and DINO's first boxes at the finest level, as a share of the image; twice that a level further.
_SIDE = 0.05


@dataclass(frozen=True)
class Queries:
    """Some queries of every image.

    Attributes:
        content: (N, Q, channels), or None for zeros.
        place: (N, Q, 4) centre and size or (N, Q, 2) points, as shares of the image, or None.
        position: (N, Q, channels), what is added to the content where it attends, or None where it is made of `place`.
    """

    content: object = None
    place: object = None
    position: object = None

    @property
    def count(self):
        """Q."""
        return next(x.shape[1] for x in vars(self).values() if x is not None)

    def map(self, function, names=("content", "place", "position")):
        """The same with `function` of each of the named tensors that are there."""
        values = {name: getattr(self, name) for name in names}
        return replace(self, **{name: function(x) for name, x in values.items() if x is not None})

    def best(self, index):
        """Those of the numbers `index` (N, K)."""
        return self.map(lambda x: chosen(x, index))

    def beside(self, other):
        """These, and behind them those of `other`."""
        pairs = {name: (x, y) for name, x in vars(self).items() if (y := getattr(other, name)) is not None}
        return Queries(**{name: paddle.concat(pair, axis=1) for name, pair in pairs.items()})


class Asked:
    """A decoder and its queries.

    Args:
        transformer: ppdet's.
        head: its head.

    Attributes:
        form: of the queries: two decoders can be asked the same if theirs are of one form.
        fields: what its `Queries` have.
        taps: what has to be recorded of a forward, by `recorders.Recorder`, for everything here.
        decoding: what of it `decode` needs.
    """

    form, fields, taps, decoding = None, (), (), ()

    def __init__(self, transformer, head):
        self.transformer, self.head = transformer, head

    @property
    def width(self):
        return self.transformer.hidden_dim

    def own(self, recorder):
        """The `Queries` of a forward in eval mode."""
        raise NotImplementedError

    def drawn(self, recorder, count):
        """`count` new `Queries` an image."""
        raise NotImplementedError

    def decode(self, recorder, queries, mask=None):
        """What every layer makes of `queries`, the images being those of the forward that was recorded.

        Args:
            recorder: of either mode.
            queries: `Queries` of this form and width.
            mask: (Q, Q) booleans, which query sees which; None for all.

        Returns:
            ``(classes, boxes)``, each (layers, N, Q, C or 4); classes as the model's own logits.
        """
        raise NotImplementedError


class AskedByBoxes(Asked):
    """RT-DETR, RT-DETRv2, Mask-RT-DETR and DINO: content, learned or taken from the encoder, and a box."""

    form, fields = "boxes", ("content", "place")
    taps = (Tap(_DECODER, argument=2), Tap("transformer.enc_output"))
    decoding = taps[:1]

    def own(self, recorder):
        content, places, *_ = recorder.arguments(_DECODER)
        return Queries(content, F.sigmoid(places))

    def drawn(self, recorder, count):
        """At random places, each with the side of the first boxes of a level that is drawn as well. What is not
        learned of the content is the encoder's at that place and level."""
        memory, sizes = recorder.arguments(_DECODER)[2:4]
        sizes = [[int(side) for side in size] for size in sizes]
        images, dtype = memory.shape[0], memory.dtype
        level = paddle.randint(0, len(sizes), [images, count])
        centre = paddle.rand([images, count, 2])
        side = _SIDE * 2.0 ** level.astype("float32").unsqueeze(-1)
        place = paddle.concat([centre, side.tile([1, 1, 2])], axis=-1)
        if getattr(self.transformer, "learnt_init_query", False):
            number = paddle.randint(0, self.transformer.num_queries, [images, count])
            content = self.transformer.tgt_embed(number)
        else:
            content = chosen(recorder.take(Tap("transformer.enc_output")), _token(centre, level, sizes))
        return Queries(content.astype(dtype), place)

    def decode(self, recorder, queries, mask=None):
        _, _, *rest = recorder.arguments(_DECODER)
        decoder, first = self.transformer.decoder, _log_odds(queries.place)
        sign = {"query_pos_head_inv_sig": getattr(self.transformer, "query_pos_head_inv_sig", False)}
        made = decoder(queries.content, first, *rest, attn_mask=mask, memory_mask=None, **sign)
        return (made[1], made[0])


class AskedOfDINO(AskedByBoxes):
    def decode(self, recorder, queries, mask=None):
        _, _, *rest, _, memory_mask = recorder.arguments(_DECODER)
        transformer, first = self.transformer, _log_odds(queries.place)
        made, places = transformer.decoder(queries.content, first, *rest, mask, memory_mask)
        if not hasattr(transformer.decoder, "return_intermediate"):  # later than the wheel: boxes, after the sigmoid
            places = _log_odds(places)
        classes = [head(x) for head, x in zip(transformer.dec_score_head, made)]
        before = [first, *places][: len(classes)]
        boxes = [F.sigmoid(head(x) + place) for head, x, place in zip(transformer.dec_bbox_head, made, before)]
        return paddle.stack(classes), paddle.stack(boxes)


class AskedByPoints(Asked):
    """Deformable DETR: learned content, a learned embedding, and the point that is made of it.

    Its decoder takes no mask, so all queries see each other.
    """

    form, fields = "points and embeddings", ("content", "place", "position")
    taps = (Tap(_DECODER, argument=2), Tap("transformer", item=2))
    decoding = taps

    def own(self, recorder):
        given = recorder.arguments(_DECODER)
        return Queries(given[0], recorder.take(self.taps[1]), given[-1])

    def drawn(self, recorder, count):
        """At random points, with the content and embedding of learned queries that are drawn."""
        transformer, images = self.transformer, recorder.arguments(_DECODER)[0].shape[0]
        number = paddle.randint(0, transformer.tgt_embed.weight.shape[0], [images, count])
        place = paddle.rand([images, count, 2])
        return Queries(transformer.tgt_embed(number), place, transformer.query_pos_embed(number))

    def decode(self, recorder, queries, mask=None):
        _, looked, *rest, _ = recorder.arguments(_DECODER)
        # What it looks at is the point in the image without its padding, at each level.
        shares = looked[:, :1] / recorder.take(self.taps[1])[:, :1].unsqueeze(2)
        place = queries.place.unsqueeze(2) * shares
        made = self.transformer.decoder(queries.content, place, *rest, queries.position)
        raw = self.head.bbox_head(made)
        boxes = paddle.concat([raw[..., :2] + _log_odds(queries.place), raw[..., 2:]], axis=-1)
        return self.head.score_head(made), F.sigmoid(boxes)


class AskedByEmbeddings(Asked):
    """DETR: a learned embedding."""

    form, fields = "embeddings", ("position",)
    taps = (Tap(_DECODER, argument=1), Tap("transformer", item=1), Tap("transformer.position_embedding"))
    decoding = taps

    def own(self, recorder):
        images = recorder.arguments(_DECODER)[1].shape[0]
        return Queries(position=self.transformer.query_pos_embed.weight.unsqueeze(0).tile([images, 1, 1]))

    def drawn(self, recorder, count):
        """Of the mean and the deviation that the learned ones have in each channel."""
        learned, images = self.transformer.query_pos_embed.weight, recorder.arguments(_DECODER)[1].shape[0]
        drawn = paddle.randn([images, count, learned.shape[1]])
        return Queries(position=learned.mean(axis=0) + drawn * learned.std(axis=0))

    def decode(self, recorder, queries, mask=None):
        memory = recorder.arguments(_DECODER)[1]
        unseen = recorder.outputs["transformer"][0][3]
        made = self.transformer.decoder(
            paddle.zeros_like(queries.position),
            memory,
            tgt_mask=mask,
            memory_mask=None if unseen is None else unseen.flatten(3).astype(memory.dtype),
            pos_embed=recorder.take(self.taps[2]).flatten(1, 2),
            query_pos_embed=queries.position,
        )
        return self.head.score_head(made), F.sigmoid(self.head.bbox_head(made))


# By the class of ppdet's transformer.
ASKED = {
    "DETRTransformer": AskedByEmbeddings,
    "DeformableTransformer": AskedByPoints,
    "DINOTransformer": AskedOfDINO,
    "MaskRTDETR": AskedByBoxes,
    "RTDETRTransformer": AskedByBoxes,
    "RTDETRTransformerv2": AskedByBoxes,
}


def apart(counts):
    """(Q, Q) booleans by which the queries of each group see their own group; None for a single group."""
    counts = [count for count in counts if count]
    if len(counts) == 1:
        return None
    group = paddle.concat([paddle.full([count], i, "int64") for i, count in enumerate(counts)])
    return group.unsqueeze(0) == group.unsqueeze(1)


def _token(centre, level, sizes):
    """(N, Q) numbers of the tokens at `centre` (N, Q, 2) in the maps of `sizes`, [[height, width], ...]."""
    token = paddle.zeros_like(level)
    begin = 0
    for i, (height, width) in enumerate(sizes):
        column = (centre[..., 0] * width).floor().clip(max=width - 1).astype("int64")
        row = (centre[..., 1] * height).floor().clip(max=height - 1).astype("int64")
        token = paddle.where(level == i, begin + row * width + column, token)
        begin += height * width
    return token


def _log_odds(x):
    x = x.clip(_EPS, 1 - _EPS)
    return paddle.log(x / (1 - x))
