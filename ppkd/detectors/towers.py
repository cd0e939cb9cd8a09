"""Head towers: the layers between a level of the neck and the convolution that predicts.

CrossKD (Wang et al., arXiv 2306.11369) sends features from inside of the student's head through the rest of the
teacher's. Here is what that needs of a head: its layers by name, and the rest of it as a function.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import paddle.nn.functional as F

from ppkd.detectors.recorders import find_module
from ppkd.detectors.taps import Tap

# What the error says where there is nothing; a test keeps it equal to the adapters that describe their towers.
SUPPORTED = ("FCOS", "GFL", "PicoDet", "PP-YOLOE", "RetinaNet", "RTMDet", "TOOD", "YOLOX")


def apply(model, tap, x):
    """What `tap` would name if its module were given `x` (N, C, H, W)."""
    return _viewed(tap, find_module(model, tap.path)(x))


def apply_pooled(model, tap, x):
    """As `apply`, for a module that takes a map and its average over all places."""
    return _viewed(tap, find_module(model, tap.path)(x, F.adaptive_avg_pool2d(x, (1, 1))))


def _viewed(tap, value):
    return value if tap.derive is None else tap.derive(value)


@dataclass(frozen=True)
class Rung:
    """One layer of a tower.

    Attributes:
        tap: from a level's index to the `Tap` of the layer's module.
        run: function of the model, that tap and the layer's input, to what the next layer gets.
        recorded: from a level's index to the tap of what the next layer gets, where that is not `tap`.
    """

    tap: Callable
    run: Callable = apply
    recorded: Callable | None = None


@dataclass(frozen=True)
class Tower:
    """The layers before a source of a head.

    Attributes:
        name: what its layers are called as sources, such as ``head.cls_tower``.
        rungs: tuple of `Rung`, from the neck on.
        between: from a level's index to the taps of the modules between the last of them and the source's own.
    """

    name: str
    rungs: tuple
    between: Callable = lambda level: ()

    def steps(self, source, level, skip):
        """``(run, tap)`` from behind the first `skip` layers to the source, which has the alias `source`."""
        rungs = [(rung.run, rung.tap(level)) for rung in self.rungs[skip:]]
        return (*rungs, *((apply, tap) for tap in (*self.between(level), source(level))))


def remaining(detector, steps):
    """A function from a map to what `steps` make of it, in eval mode whatever mode the head is in."""
    return partial(_climb, detector, steps)


def _climb(detector, steps, x):
    with detector.block(), evaluating(detector.head):
        for run, tap in steps:
            x = run(detector.model, tap, x)
    return x


@contextlib.contextmanager
def evaluating(layer):
    """A block in which `layer` is in eval mode; afterwards every sub-layer is in its own mode again."""
    modes = [(each, each.training) for each in layer.sublayers(include_self=True)]
    layer.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


def convolutions(path, feature):
    """The rungs of an ``FCOSFeat`` (GFL, FCOS, RetinaNet), which is called once a level.

    Args:
        path: where the feature module lies.
        feature: that module.

    Returns:
        Rungs of the class branch and of the box branch; empty for a module of another kind.
    """
    count = len(getattr(feature, "cls_subnet_convs", ()))
    return tuple(
        # The activation is a function in ppdet, so no module returns what the next layer gets.
        tuple(Rung(partial(_shared, f"{path}.fcos_head_{branch}_tower_conv_{k}", F.relu)) for k in range(count))
        for branch in ("cls", "reg")
    )


def _shared(path, derive, level):
    return Tap(path, call=level, derive=derive)
