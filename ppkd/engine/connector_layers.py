"""Makes the connectors that a term names, and checks what they are given: see `connectors`."""

from functools import partial

from paddle import nn

from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.sides import OF_CONNECTOR, OF_FORWARD, Moment, parameters
from ppkd.errors import UserError, nearest


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
        _check_tokens(kind, getattr(sides, side).level, f"{where}: connector {link['name']}")
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


def _check_tokens(kind, level, begin):
    """Refuse a connector of maps for what is none; a plugin's may know what to make of it."""
    kind = getattr(kind, "func", kind)
    if level.tokens is None or getattr(kind, "takes_tokens", False) or not kind.__module__.startswith("ppkd."):
        return
    known = [name for name, each in CONNECTORS.items() if getattr(getattr(each, "func", each), "takes_tokens", False)]
    raise UserError(f"{begin} takes maps (N, C, H, W), and {level.source} is none: {', '.join(known)} take it")


def _takes(link, sides):
    takes = getattr(CONNECTORS[link["name"]], "takes", None)
    return takes(sides, **_params(link)) if takes else None


def _params(link):
    return {key: value for key, value in link.items() if key != "name"}


def _own_parameters(kind):
    """The parameters of a connector that a file may set."""
    fixed = kind.keywords if isinstance(kind, partial) else ()
    return [name for name in parameters(kind) if name not in OF_CONNECTOR and name not in fixed]
