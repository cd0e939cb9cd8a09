"""Connectors make a student's tensor comparable to a teacher's. Their parameters are trained with the student.

A connector is a layer ``kind(channels, target, parameters)`` with an attribute ``channels``, what comes out. Its
constructor may have a parameter ``sides`` and gets `sides.Sides`; its ``forward`` takes the tensor, and may have a
parameter ``moment`` and gets `sides.Moment`. An attribute ``side``, ``student`` or ``teacher``, says that it can stand
on that side only; one of ppkd's that has no attribute ``takes_tokens`` takes maps (N, C, H, W) alone. Several
connectors make a `connector_layers.Chain`.
"""

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppkd.engine.channel_matching import Match
from ppkd.engine.sizes import match_size
from ppkd.errors import UserError
from ppkd.losses.common import full_precision, up
from ppkd.losses.mgd import check_mask, draw_mask, generation_block, mgd_generate
from ppkd.losses.normalise import batch_standardise, pkd_standardise


class Identity(nn.Layer):
    """Passes the map on; it only knows how many channels come out."""

    takes_tokens = True

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return x


class Align(nn.Layer):
    """1x1 convolution with bias to the target's channels; nothing at all where the numbers agree. Of the queries of a
    decoder, (N, tokens, C), it is a linear layer.

    The adapter of FGD, MGD and most feature distillers (FitNets, arXiv 1412.6550).

    .. code-block:: yaml

        student_connector: {name: align, always: true, bias: false}

    Args:
        channels: channels that come in.
        target: channels that go out.
        always: a convolution also where the numbers agree.
        bias: whether it has a bias.
    """

    takes_tokens = True

    def __init__(self, channels, target, always=False, bias=True):
        super().__init__()
        self.channels = target
        needed = always or channels != target
        self.conv = nn.Conv2D(channels, target, 1, bias_attr=None if bias else False) if needed else None

    def forward(self, x):
        return x if self.conv is None else _at_each_place(self.conv, x)


class Normed(nn.Layer):
    """A normalisation without parameters and without running statistics, after an `Align` or alone.

    Args:
        channels: channels that come in.
        target: channels that go out, if `align`.
        norm: function from a map to a map that takes the mean of each channel out.
        align: whether unequal channels are connected first, without a bias: the norm would take it out again.
    """

    def __init__(self, channels, target, norm, align=False):
        super().__init__()
        self.channels = target if align else channels
        self.align = Align(channels, target, bias=False) if align else None
        self._norm = norm

    def forward(self, x):
        return self._norm(x if self.align is None else self.align(x))


class Projector(nn.Layer):
    """Two 1x1 convolutions with a ReLU between them, to the target's channels.

    A projector even between equal channels keeps what the teacher asks for apart from what the detector needs (Chen et
    al., "Improved Feature Distillation via Projector Ensemble", NeurIPS 2022, arXiv 2210.15274).

    .. code-block:: yaml

        student_connector: {name: projector, hidden: 256}

    Args:
        channels: channels that come in.
        target: channels that go out.
        hidden: channels between the two; `target` if not given.
    """

    takes_tokens = True

    def __init__(self, channels, target, hidden=None):
        super().__init__()
        self.channels = target
        self.inner, self.outer = nn.Conv2D(channels, hidden or target, 1), nn.Conv2D(hidden or target, target, 1)

    def forward(self, x):
        return _at_each_place(lambda places: self.outer(F.relu(self.inner(places))), x)


class Resize(nn.Layer):
    """Resizes a map to the height and width of the other side's, as `match_size` does.

    Without it the teacher's map takes the student's size. On the student's side it goes the other way.

    .. code-block:: yaml

        student_connector: [align, resize]
    """

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x, moment):
        return match_size(moment.like, x)


class Generate(nn.Layer):
    """Drops a random part of the map, then makes a whole one of it: 3x3 convolution, ReLU, 3x3 convolution.

    MGD's connector (Yang et al., ECCV 2022, arXiv 2205.01529), for any loss; with the loss ``mgd`` it is built in.

    .. code-block:: yaml

        student_connector: [align, {name: generate, lambda_: 0.65}]
        loss: {name: l2, normalize: false}

    Args:
        channels: channels that come in and go out.
        target: not used.
        lambda_: the fraction that is dropped, 0 to 1.
        mask: ``spatial`` drops positions, ``channel`` whole channels.
    """

    def __init__(self, channels, target, lambda_=0.65, mask="spatial"):
        super().__init__()
        self.channels = channels
        check_mask(lambda_, mask)
        self.generation = generation_block(channels)
        self._lambda, self._mask = lambda_, mask

    def forward(self, x):
        return mgd_generate(x, draw_mask(x.shape, self._lambda, self._mask), self.generation)


class TeacherHead(nn.Layer):
    """Sends the student's features through the remaining layers of the teacher's head, which stay as they are.

    CrossKD's connector (Wang et al., CVPR 2024, arXiv 2306.11369, section 3.2): what comes out is compared with the
    teacher's own prediction, so that the student's head is not pulled two ways at once. The teacher's source says which
    head: ``head.cls[*]`` or that of the boxes. Unequal channels are connected by `Align` before it.

    .. code-block:: yaml

        student: head.cls_tower.2[*]
        teacher: head.cls[*]
        student_connector: [align, {name: teacher_head, skip: 3}]
        loss: {name: crosskd_cls}

    Args:
        channels: channels that come in.
        target: not used: the head gives what it gives.
        sides: `sides.Sides`; the layers are those before the teacher's map.
        skip: how many layers of the teacher's tower are left out; 0 takes the student's neck through the whole head.
    """

    side = "student"

    def __init__(self, channels, target, sides, skip=0):
        super().__init__()
        layers = sides.teacher.remaining(skip)
        if channels != layers.channels_in:
            raise UserError(
                f"connector teacher_head: {channels} channels come in, the teacher's layers take {layers.channels_in}; "
                "put `align` before it: [align, {name: teacher_head, skip: ...}]"
            )
        self.channels, self._layers = layers.channels, layers

    def forward(self, x):
        return self._layers.run(x)

    def let_go(self):
        """Forget the teacher's layers: it is not needed any more, and its memory is."""
        self._layers = None

    @staticmethod
    def takes(sides, skip=0):
        """Channels that have to come in, whatever goes out: what a connector before it has to give."""
        return sides.teacher.remaining(skip).channels_in


class Norm(nn.Layer):
    """Normalises the student's map and gives each channel a trained scale and shift.

    .. code-block:: yaml

        student_connector: {name: norm, kind: gn, groups: 32}

    Args:
        channels: channels that come in and go out.
        target: not used.
        kind: ``gn``, by groups of channels of an image; ``bn``, over the batch; ``sync_bn``, over the batches of all
            ranks where there are several, on GPUs.
        groups: of ``gn``.

    Raises:
        ValueError: another kind, or channels that are no multiple of the groups.
    """

    def __init__(self, channels, target, kind="gn", groups=32):
        super().__init__()
        self.channels = channels
        if kind not in ("gn", "bn", "sync_bn"):
            raise ValueError(f"kind is {kind!r}, expected gn, bn or sync_bn")
        if kind == "gn" and (not isinstance(groups, int) or groups < 1 or channels % groups):
            raise ValueError(f"groups is {groups!r}, expected a divisor of the {channels} channels")
        if kind == "gn":
            self.norm = nn.GroupNorm(groups, channels)
        else:
            self.norm = nn.BatchNorm2D(channels)
            if kind == "sync_bn" and paddle.distributed.get_world_size() > 1 and _on_gpu():
                self.norm = nn.SyncBatchNorm.convert_sync_batchnorm(self.norm)

    @full_precision
    def forward(self, x):
        return self.norm(up(x))


def _at_each_place(convolve, x):
    """1x1 convolutions of a map, or of (N, tokens, C): those are places in a row."""
    if len(x.shape) != 3:
        return convolve(x)
    return convolve(x.transpose([0, 2, 1]).unsqueeze(-1)).squeeze(-1).transpose([0, 2, 1])


def _on_gpu():
    return paddle.get_device().startswith("gpu")


def _normalise(x):
    return pkd_standardise(up(x), unbiased=True)


# By the name that a term gives. standardise: batch norm without affine parameters (RTMDet's distillation, MMYOLO);
# normalise: PaddleDetection's, by the unbiased standard deviation.
CONNECTORS = {
    "none": Identity,
    "align": Align,
    "linear": partial(Align, always=True),
    "standardise": partial(Normed, norm=batch_standardise),
    "align_standardise": partial(Normed, norm=batch_standardise, align=True),
    "normalise": partial(Normed, norm=_normalise),
    "align_normalise": partial(Normed, norm=_normalise, align=True),
    "projector": Projector,
    "resize": Resize,
    "generate": Generate,
    "teacher_head": TeacherHead,
    "match": Match,
    "norm": Norm,
}
