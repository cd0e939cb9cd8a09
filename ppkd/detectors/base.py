"""The generic detector adapter: anything of ppdet with a backbone and, mostly, a neck."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import paddle

from ppkd.errors import UserError, nearest
from ppkd.recorders import Recorder, find_module

# Side of the square image of the dry forward, in pixels: a multiple of 128, so that every stride up to 128 is exact.
PROBE_SIZE = 256

# What some detectors have beside sources: boxes as offsets in cells and factors on anchors, behind sigmoid and
# exponential; and targets that can be read and given.
ANCHORS, TARGETS = "boxes on anchors", "a target assignment"

_SOURCE = re.compile(r"^(?P<name>[A-Za-z_][\w.]*?)(\[(?P<index>\d+|\*)\])?$")


@dataclass(frozen=True)
class Tap:
    """Where a tensor is taken: output `item` of call `call` of the module at `path`, or the part that `view` cuts.

    `view` is a module-level function or a `partial` of one, so that a tap can be pickled. `grid` says that the map has
    so many cells whatever the size of the image, and so no stride.
    """

    path: str
    call: int = 0
    item: int = 0
    view: Callable | None = None
    grid: bool = False


@dataclass(frozen=True)
class Level:
    """One tensor of a source as the dry forward saw it.

    Attributes:
        source: name as the user would write it, for example ``neck[1]``.
        tap: where it is recorded.
        channels: its second dimension.
        stride: input pixels per cell, or None for a tensor that is no feature map.
        cells: height and width of a grid that is the same for images of any size, else None.
    """

    source: str
    tap: Tap
    channels: int
    stride: int | None
    cells: tuple | None = None

    @property
    def place(self):
        """What two levels have in common that show the same places: stride or grid; None for neither."""
        return self.stride or self.cells


class Detector:
    """Names the sources of a ppdet detector and runs the needed part of it.

    Args:
        model: a ppdet architecture. It is neither changed nor owned.
    """

    head_name = "head"
    # Where the point of a cell lies, from 0 (its upper left corner) to 1, and the distance in strides that the first
    # bin of a box edge's distribution stands for.
    cell_offset = 0.5
    first_bin = 0
    abilities = frozenset()

    def __init__(self, model):
        self.model = model

    @classmethod
    def fits(cls, model):
        """Whether this adapter is made for `model`."""
        return True

    def aliases(self):
        """Named sources beside module paths: name -> function from level index to `Tap`, or None beyond the last."""
        found = {}
        for part in ("backbone", "neck"):
            if getattr(self.model, part, None) is not None:
                found[part] = lambda i, part=part: Tap(part, item=i)
        return found

    @contextlib.contextmanager
    def prepared(self, batch):
        """A block in which the model trains on the batch that it yields: what a teacher has to see as well."""
        yield batch

    def training_state(self):
        """What the model counts while it trains and its ``state_dict`` leaves out, as plain values."""
        return {}

    def restore_training_state(self, state):
        """Go on counting as `state` says."""

    def run(self, batch, parts):
        """Run the detector as far as the modules under `parts` need: no assigner, no loss, no post-processing.

        Args:
            batch: ppdet's batch, a dict with at least ``image``.
            parts: first components of the recorded paths, for example ``{"neck"}``.
        """
        body = self.model.backbone(batch)
        if parts <= {"backbone"}:
            return
        neck = getattr(self.model, "neck", None)
        features = neck(body) if neck is not None else body
        if parts <= {"backbone", "neck"}:
            return
        self.run_head(features, batch)

    def run_head(self, features, batch):
        """Run the head on the neck's output in eval mode, short of post-processing."""
        self.head(features)

    @property
    def head(self):
        """The detector's head, under whatever name ppdet has for it."""
        return find_module(self.model, self.head_name)

    @staticmethod
    def given(assignment):
        """For a detector that takes no targets from outside: a block that changes nothing."""
        return contextlib.nullcontext()

    def offers(self, source):
        """Whether the detector has the named source, such as ``head.box_dist``, or ability, such as `TARGETS`."""
        return source in self.abilities or source in self.aliases()

    @property
    def assigns(self):
        """Whether it can tell which targets its own loss assigned; see `ppyoloe.PPYOLOE`."""
        return TARGETS in self.abilities

    def levels(self, source):
        """What `source` names, found by a dry forward.

        Args:
            source: ``neck[*]`` (all levels), ``neck[1]``, or a module path such as ``neck.fpn_res4_sum``.

        Returns:
            List of `Level`, in the order of the model.

        Raises:
            UserError: no such source; the message gives the nearest that exist.
        """
        match = _SOURCE.match(source)
        if match is None:
            raise UserError(f"{source!r} is not a source: write neck[*], neck[0] or a module path")
        name, index = match["name"], match["index"]
        alias = self.aliases().get(name)
        if alias is None and find_or_none(self.model, name) is None:
            paths = [n for n, _ in self.model.named_sublayers()]
            known = [*self.aliases(), *paths]
            raise UserError(
                f"{type(self.model).__name__} has no source {source!r}{nearest(name, known)}; "
                f"named sources: {', '.join(f'{a}[i]' for a in self.aliases())}"
            )
        if index == "*" or (index is None and alias is not None):
            return self._all_levels(name, alias)
        tap = alias(int(index)) if alias else Tap(name, item=int(index or 0))
        if tap is None or find_or_none(self.model, tap.path) is None:
            raise UserError(f"{type(self.model).__name__} has no {source!r}: {name} has {self._count(alias)} levels")
        return [self._probe(source, [tap])[0]]

    def _all_levels(self, name, alias):
        make = alias or (lambda i: Tap(name, item=i))
        count = self._count(make)
        return self._probe(name, [make(i) for i in range(count)])

    def _count(self, make):
        """How many levels an alias has: outputs of one call, calls of one module, or modules in a list."""
        first, second = make(0), make(1)
        if second is None or first.path != second.path:
            count = 0
            while (tap := make(count)) is not None and find_or_none(self.model, tap.path) is not None:
                count += 1
            return count
        calls = self._dry_run([first.path])[first.path]
        if first.call != second.call:
            return len(calls)
        return len(calls[0]) if isinstance(calls[0], (list, tuple)) else 1

    def _probe(self, name, taps):
        outputs = self._dry_run([tap.path for tap in taps])
        recorder = Recorder(self.model, [tap.path for tap in taps])
        recorder.outputs = outputs
        levels = []
        for i, tap in enumerate(taps):
            shape = recorder.take(tap).shape
            is_map = len(shape) == 4 and shape[2] > 0
            stride = PROBE_SIZE // shape[2] if is_map and not tap.grid else None
            cells = (int(shape[2]), int(shape[3])) if is_map and tap.grid else None
            source = name if len(taps) == 1 and "[" in name else f"{name}[{i}]"
            levels.append(Level(source, tap, int(shape[1]) if len(shape) > 1 else 0, stride, cells))
        return levels

    def _dry_run(self, paths):
        """Outputs of the modules at `paths` for one empty image, leaving the model as it was."""
        modes = [(layer, layer.training) for layer in self.model.sublayers(include_self=True)]
        self.model.eval()
        size = float(PROBE_SIZE)
        batch = {
            "image": paddle.zeros([1, 3, PROBE_SIZE, PROBE_SIZE]),
            "im_shape": paddle.to_tensor([[size, size]]),
            "scale_factor": paddle.ones([1, 2]),
            "im_id": paddle.zeros([1, 1], dtype="int64"),
        }
        try:
            with paddle.no_grad(), Recorder(self.model, paths) as recorder:
                self.run(batch, {path.split(".")[0] for path in paths})
            return recorder.outputs
        finally:
            for layer, training in modes:
                layer.training = training


def find_or_none(model, path):
    """The sub-layer at `path`, or None."""
    try:
        return find_module(model, path)
    except UserError:
        return None
