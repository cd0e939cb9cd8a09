"""A user's own losses and connectors: registered by a decorator.

In a file or package that `plugin_files` finds::

    from paddle import nn
    from ppkd.plugins import register_loss

    @register_loss("charbonnier")
    class Charbonnier(nn.Layer):
        def __init__(self, eps=1e-3):
            super().__init__()
            self.eps = eps

        def forward(self, student, teacher):
            return ((student - teacher).square() + self.eps**2).sqrt().mean()
"""

import inspect

from paddle import nn

from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.loss_layers import context_names
from ppkd.errors import UserError
from ppkd.losses import LOSSES


def register_loss(name):
    """Decorator that makes a loss known under `name` in ``loss:`` of a term.

    The class is an ``nn.Layer``. Its ``forward(student, teacher, ...)`` returns a scalar or a dict of scalars; what it
    takes beside the two tensors are names of `context.Context`. Parameters of its constructor are those of the file,
    but for ``sides``, `sides.Sides`, and the short names ``channels`` and ``student_channels``. With
    ``all_levels = True`` on the class it gets lists of all levels' tensors.

    Raises:
        UserError: a name that is taken, or a class that is no loss.
    """

    def register(kind):
        _check_class(kind, "loss", name, LOSSES)
        context_names(_Bound(kind), name)
        LOSSES[name] = kind
        return kind

    return register


def register_connector(name):
    """Decorator that makes a connector known under `name` in ``student_connector:`` and ``teacher_connector:``.

    The class is an ``nn.Layer`` made as ``kind(channels, target, parameters of the file)``: channels that come in and
    that should go out; its attribute ``channels`` says how many do. Its constructor may take ``sides``, `sides.Sides`,
    and its ``forward(x)`` ``moment``, `sides.Moment`.

    Raises:
        UserError: a name that is taken, or a class that is no connector.
    """

    def register(kind):
        _check_class(kind, "connector", name, CONNECTORS)
        lacking = [k for k in ("channels", "target") if k not in inspect.signature(kind).parameters]
        if lacking:
            raise UserError(
                f"connector {name}: its constructor lacks {' and '.join(lacking)}; it has to begin with "
                "__init__(self, channels, target)"
            )
        CONNECTORS[name] = kind
        return kind

    return register


def _check_class(kind, what, name, known):
    if not (isinstance(kind, type) and issubclass(kind, nn.Layer)):
        raise UserError(f"{what} {name}: has to be a class that inherits from paddle.nn.Layer, found {kind!r}")
    if name in known:
        raise UserError(f"{what} {name}: there is one of this name already ({known[name]!r}); take another")


class _Bound:
    """A class's ``forward`` without ``self``, for looking at its signature."""

    def __init__(self, kind):
        parameters = list(inspect.signature(kind.forward).parameters.values())[1:]

        def forward():
            pass

        forward.__signature__ = inspect.Signature(parameters)
        self.forward = forward
