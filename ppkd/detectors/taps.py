"""Where a tensor of a detector is recorded, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tap:
    """Where a tensor is taken: output `item` of call `call` of the module at `path`, or the part that `derive` cuts.

    With `argument` it is the module's positional argument of that number, not its output. With `plus` that tap's
    tensor is added to it, for a sum that no module returns. With `beside`, `derive` is given that tap's tensor too.

    `derive` is a module-level function or a `partial` of one, so that a tap can be pickled. `grid` says that the map
    has so many cells whatever the size of the image, and so no stride.
    """

    path: str
    call: int = 0
    item: int = 0
    derive: Callable | None = None
    grid: bool = False
    argument: int | None = None
    plus: Tap | None = None
    beside: Tap | None = None

    @property
    def paths(self):
        """The modules that have to be recorded."""
        return [self.path, *(path for tap in self._others for path in tap.paths)]

    @property
    def inputs_of(self):
        """Those of them whose arguments are taken."""
        own = [] if self.argument is None else [self.path]
        return [*own, *(path for tap in self._others for path in tap.inputs_of)]

    @property
    def _others(self):
        return [tap for tap in (self.plus, self.beside) if tap]


@dataclass(frozen=True)
class Level:
    """One tensor of a source as the dry forward saw it.

    Attributes:
        source: name as the user would write it, for example ``neck[1]``.
        tap: where it is recorded.
        channels: its second dimension, of (N, tokens, C) its last.
        stride: input pixels per cell, or None for a tensor that is no feature map.
        cells: height and width of a grid that is the same for images of any size, else None.
        tokens: of (N, tokens, C) how many there are, the queries of a decoder or places in a row, else None.
    """

    source: str
    tap: Tap
    channels: int
    stride: int | None
    cells: tuple | None = None
    tokens: int | None = None

    @property
    def is_map(self):
        """Whether it is (N, C, H, W)."""
        return self.stride is not None or self.cells is not None

    @property
    def place(self):
        """What two levels have in common that show the same places: stride or grid; None for neither."""
        return self.stride or self.cells
