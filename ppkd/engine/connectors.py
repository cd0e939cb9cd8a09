"""Connectors make a student's tensor comparable to a teacher's. Their parameters are trained with the student.

A connector is a layer ``kind(channels, target, parameters)`` with an attribute ``channels``, what comes out. Its
constructor may have a parameter ``sides`` and gets `sides.Sides`; its ``forward`` takes the tensor, and may have a
parameter ``moment`` and gets `sides.Moment`. An attribute ``side``, ``student`` or ``teacher``, says that it can stand
on that side only. Several connectors make a `Chain`.
"""

from functools import partial

import paddle.nn.functional as F
from paddle import nn

from ppkd.engine.channel_matching import Match, Norm
from ppkd.engine.sides import OF_CONNECTOR, OF_FORWARD, Moment, parameters
from ppkd.engine.sizes import match_size
from ppkd.errors import UserError, nearest
from ppkd.losses.common import up
from ppkd.losses.mgd import check_mask, draw_mask, generation_block, mgd_generate
from ppkd.losses.normalise import batch_standardise, pkd_standardise


class Identity(nn.Layer):
    """Passes the map on; it only knows how many channels come out."""

    def __init__(self, channels, target):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return x


class Align(nn.Layer):
    """1x1 convolution with bias to the target's channels; nothing at all where the numbers agree.

    The adapter of FGD, MGD and most feature distillers (FitNets, arXiv 1412.6550).

    .. code-block:: yaml

        student_connector: {name: align, always: true, bias: false}

    Args:
        channels: channels that come in.
        target: channels that go out.
        always: a convolution also where the numbers agree.
        bias: whether it has a bias.
    """

    def __init__(self, channels, target, always=False, bias=True):
        super().__init__()
        self.channels = target
        needed = always or channels != target
        self.conv = nn.Conv2D(channels, target, 1, bias_attr=None if bias else False) if needed else None

    def forward(self, x):
        return x if self.conv is None else self.conv(x)


class Normed(nn.Layer):
    """A normalisation without parameters and without running statistics, after an `Align` or alone.

    Args:
        channels: channels that come in.
        target: channels that go out, if `align`.
        norm: function from a map to a map.
        align: whether unequal channels are connected first.
    """

    def __init__(self, channels, target, norm, align=False):
        super().__init__()
        self.channels = target if align else channels
        self.align = Align(channels, target) if align else None
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

    def __init__(self, channels, target, hidden=None):
        super().__init__()
        self.channels = target
        self.inner, self.outer = nn.Conv2D(channels, hidden or target, 1), nn.Conv2D(hidden or target, target, 1)

    def forward(self, x):
        return self.outer(F.relu(self.inner(x)))


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


class Chain(nn.Layer):
    """Connectors one after another, each with what its ``forward`` asks for."""

    def __init__(self, links):
        super().__init__()
        self.links = nn.LayerList(links)
        self.channels = links[-1].channels
        self._asked = [OF_FORWARD & parameters(link.forward).keys() for link in links]

    @property
    def asks(self):
        """Whether what comes out depends on more than what comes in."""
        return any(self._asked)

    def forward(self, x, like, age=0):
        """Connect `x`; `like` is the other side's tensor, `age` the batches since the term began."""
        moment = Moment(like, age)
        for link, asked in zip(self.links, self._asked):
            x = link(x, **moment.asked(asked))
        return x


def _normalise(x):
    return pkd_standardise(up(x), unbiased=True)


# standardise: batch norm without affine parameters (RTMDet's distillation, MMYOLO); normalise: PaddleDetection's, by
# the unbiased standard deviation.
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

def check_connectors(given, where):
    """Refuse connectors that do not exist, and parameters that they do not have.

    Args:
        given: a name, a mapping with ``name``, or a list of these.
        where: for messages.

    Returns:
        The same as a list of mappings.

    Raises:
        UserError: see above.
    """
    links = []
    for each in given if isinstance(given, (list, tuple)) else [given]:
        link = {"name": each} if isinstance(each, str) else each
        if not isinstance(link, dict) or not isinstance(link.get("name"), str):
            raise UserError(f"{where}: a connector is a name or {{name: ..., parameters}}, found {each!r}")
        if link["name"] not in CONNECTORS:
            known = ", ".join(CONNECTORS)
            raise UserError(
                f"{where}: unknown connector {link['name']!r}{nearest(link['name'], CONNECTORS)}; known: {known}"
            )
        own = _own_parameters(CONNECTORS[link["name"]])
        for key in link:
            if key != "name" and key not in own:
                has = f"it has: {', '.join(own)}" if own else "it has none"
                raise UserError(f"{where}: connector {link['name']} has no parameter {key!r}{nearest(key, own)}; {has}")
        links.append(link)
    if not links:
        raise UserError(f"{where}: an empty list of connectors; write none")
    return links


def build_connector(given, channels, target, where, sides, side="student"):
    """Build the `Chain` that a term names.

    Args:
        given: as for `check_connectors`.
        channels: channels that come in.
        target: channels that are to go out.
        where: for messages.
        sides: `sides.Sides`.
        side: which of the two it is for, ``student`` or ``teacher``.

    Raises:
        UserError: as `check_connectors`; a connector that cannot be made of these channels, or not on this side.
    """
    links = check_connectors(given, where)
    made = []
    for i, link in enumerate(links):
        kind = CONNECTORS[link["name"]]
        if getattr(kind, "side", side) != side:
            raise UserError(f"{where}: connector {link['name']} is for the {kind.side}'s side")
        goal = next((wanted for after in links[i + 1 :] if (wanted := _takes(after, sides))), target)
        try:
            layer = kind(channels, goal, **sides.of_connector(kind), **_params(link))
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: connector {link['name']}: {error}") from error
        if not isinstance(getattr(layer, "channels", None), int):
            raise UserError(f"{where}: connector {link['name']} has no attribute `channels`: how many come out")
        made.append(layer)
        channels = layer.channels
    return Chain(made)


def _takes(link, sides):
    takes = getattr(CONNECTORS[link["name"]], "takes", None)
    return takes(sides, **_params(link)) if takes else None


def _params(link):
    return {key: value for key, value in link.items() if key != "name"}


def _own_parameters(kind):
    """The parameters of a connector that a file may set."""
    fixed = kind.keywords if isinstance(kind, partial) else ()
    return [name for name in parameters(kind) if name not in OF_CONNECTOR and name not in fixed]
