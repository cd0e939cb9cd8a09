"""The generic detector adapter: anything of ppdet with a backbone and, mostly, a neck."""

import contextlib
import inspect

import paddle

from ppkd.detectors.levels import count_of, find_or_none, levels_of
from ppkd.detectors.recorders import Recorder, find_module, paths_below
from ppkd.detectors.residual import norm_of, sums
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import SUPPORTED, evaluating, remaining
from ppkd.errors import UserError

# A multiple of 128, so that every stride up to 128 is exact.
PROBE_SIZE = 256

# What some detectors have beside sources: boxes as offsets in cells and factors on anchors, behind sigmoid and
# exponential; and targets that can be read and given.
ANCHORS, TARGETS = "boxes on anchors", "a target assignment"


class Detector:
    """Names the sources of a ppdet detector and runs the needed part of it.

    Args:
        model: a ppdet architecture. It is neither changed nor owned.

    Attributes:
        block: function to a block in which a teacher computes; another where it has a precision of its own.
    """

    head_name = "head"
    # Side of the square image of the dry forward, in pixels.
    probe_size = PROBE_SIZE
    # Where the point of a cell lies, from 0 (its upper left corner) to 1, and the distance in strides that the first
    # bin of a box edge's distribution stands for.
    cell_offset = 0.5
    first_bin = 0
    abilities = frozenset()

    def __init__(self, model):
        self.model, self.block = model, contextlib.nullcontext
        self._numbers_of_levels = {}

    @classmethod
    def fits(cls, model):
        """Whether this adapter is made for `model`."""
        return True

    def aliases(self):
        """Named sources beside module paths: name -> function from level index to `Tap`, or None beyond the last."""
        found = {}
        for part in ("backbone", "neck"):
            # What the head is given; without a neck (SSD) these are the backbone's maps.
            path = part if getattr(self.model, part, None) is not None else "backbone"
            if getattr(self.model, path, None) is not None:
                found[part] = lambda i, path=path: Tap(path, item=i)
        if (before_relu := sums(self.model)) is not None:
            found["backbone.pre_relu"] = before_relu
        for tower in self.towers().values():
            found |= {f"{tower.name}.{k}": rung.recorded or rung.tap for k, rung in enumerate(tower.rungs)}
        return found

    def towers(self):
        """Source of the head -> `towers.Tower` before it; empty if this head's layers are not known."""
        return {}

    def tower(self, source):
        """The number of layers between a level of the neck and the convolution that makes `source`.

        Args:
            source: without an index, such as ``head.cls``. Where the tower's layers are sources, they are called
                ``head.cls_tower.0[i]`` and so on (``head.box_tower`` for boxes).

        Raises:
            UserError: the layers of this head, or those before this source, are not known.
        """
        return len(self._tower(source).rungs)

    def remaining(self, source, level, skip):
        """The part of the head that follows the first `skip` layers of the tower before `source`.

        Made for a frozen teacher: it runs its own layers, in eval mode, and gradients flow to the input.

        Args:
            source: without an index: ``head.cls``, ``head.box_dist``, ``head.box`` or another that has a tower.
            level: index of the level, as in ``source[level]``.
            skip: layers left out, from 0 (the input is the neck's level) to ``tower(source)``.

        Returns:
            Function from a map (N, C, H, W), as layer ``skip - 1`` gives it, to the tensor that ``source[level]``
            names.

        Raises:
            UserError: the layers are not known, or there is no such level or skip.
        """
        tower, alias = self._tower(source), self.aliases()[source]
        count = len(tower.rungs)
        # Counting may take a dry forward, and this is asked once a level.
        levels = self._numbers_of_levels.get(source) or count_of(self, alias)
        self._numbers_of_levels[source] = levels
        if not 0 <= skip <= count:
            raise UserError(f"{source} has a tower of {count} layers: skip has to be from 0 to {count}, found {skip}")
        if not 0 <= level < levels:
            raise UserError(f"{type(self.model).__name__} has no '{source}[{level}]': {source} has {levels} levels")
        return remaining(self, tower.steps(alias, level, skip))

    def enters(self, source, level, skip):
        """The source whose tensor `remaining` takes: the neck's level, or a layer of the tower."""
        return f"{self._tower(source).name}.{skip - 1}[{level}]" if skip else f"neck[{level}]"

    def _tower(self, source):
        towers = self.towers()
        if source == "head.ltrb":  # what a tap derives from the boxes' own source
            source = next((name for name in ("head.box_dist", "head.box") if name in towers), source)
        if source not in towers:
            has = f"there is one before {', '.join(towers)}" if towers else f"known are those of {', '.join(SUPPORTED)}"
            raise UserError(f"the layers of {type(self.model).__name__}'s head before {source!r} are not known; {has}")
        return towers[source]

    def norm_before(self, level):
        """The batch norm whose output a `Level` is, or to which a ResNet adds its shortcut; None if there is none."""
        return norm_of(self.model, level.tap)

    @contextlib.contextmanager
    def prepared(self, batch):
        """A block in which the model trains on the batch that it yields: what a teacher has to see as well."""
        yield batch

    def state(self):
        """What the model counts while it trains and its ``state_dict`` leaves out, as plain values."""
        return {}

    def restore(self, state):
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
        """Run the head on the neck's output in eval mode, short of post-processing.

        Raises:
            UserError: there is no adapter for a head that takes more than that.
        """
        if not self.runs_head:
            raise UserError(
                f"{type(self.model).__name__}: how its head is run is not known here; sources are those of backbone "
                "and neck: ppkd layers"
            )
        self.head(features)

    @property
    def runs_head(self):
        """Whether it is known how the head is run: without an adapter, if it takes the neck's output alone."""
        if type(self).run_head is not Detector.run_head:
            return True
        head = find_or_none(self.model, self.head_name)
        return head is not None and _takes_one(head.forward)

    def paths(self):
        """The paths of all modules that a dry forward runs, and of some that stand beside them."""
        every = paths_below(self.model)
        return [path for path in every if self.runs_head or _parts([path]) <= {"backbone", "neck"}]

    @property
    def head(self):
        """The detector's head, under whatever name ppdet has for it."""
        return find_module(self.model, self.head_name)

    @property
    def num_classes(self):
        """Number of classes of the class logits ``head.cls[i]``, per anchor; None for a head without them."""
        return self.head.num_classes if "head.cls" in self.aliases() else None

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
            source: ``neck[*]`` (all levels), ``neck[1]``, ``neck[s8]`` or ``neck[s8,s16]`` (those of a stride), or a
                module path such as ``neck.fpn_res4_sum``.

        Returns:
            List of `Level`, in the order of the model.

        Raises:
            UserError: no such source; the message gives the nearest that exist.
        """
        return levels_of(self, source)

    def dry_run(self, paths):
        """A `Recorder` of the modules at `paths` for one empty image; the model is left as it was."""
        size = float(self.probe_size)
        batch = {
            "image": paddle.zeros([1, 3, self.probe_size, self.probe_size]),
            "im_shape": paddle.to_tensor([[size, size]]),
            "scale_factor": paddle.ones([1, 2]),
            "im_id": paddle.zeros([1, 1], dtype="int64"),
        }
        with evaluating(self.model), paddle.no_grad(), Recorder(self.model, paths) as recorder:
            self.run(batch, _parts(paths))
        return recorder

    @contextlib.contextmanager
    def looked_at_once(self, whole=False):
        """A block in which the model stays as it is: one dry forward tells of all that runs the same parts of it.

        Args:
            whole: whether it is one of all parts, whatever is asked for.
        """
        dry_run, seen = self.dry_run, {}

        def known(paths):
            parts = _parts(self.paths() if whole else paths)
            if parts not in seen or not seen[parts].outputs.keys() >= set(paths):
                below = (path for path in paths_below(self.model) if _parts([path]) <= parts)
                seen[parts] = dry_run([*below, *paths])
            return seen[parts]

        self.dry_run = known
        try:
            yield
        finally:
            del self.dry_run  # the class's own again, and no tensor is kept


def _parts(paths):
    return frozenset(path.split(".")[0] for path in paths)


def _takes_one(function):
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed) == 1
