"""The stages of a ResNet before their last ReLU: sums that no module of ppdet's returns."""

from functools import partial

from paddle.nn.layer.norm import _BatchNormBase

from ppkd.detectors.recorders import find_module
from ppkd.detectors.taps import Tap


def sums(model):
    """Function from a stage's index to the `Tap` of its last block's sum, before the ReLU; None for another backbone.

    All stages are there, whichever of them the neck gets (``return_idx``): 0 is the stage called c2, of stride 4.
    """
    backbone = getattr(model, "backbone", None)
    if not any(kind.__name__ == "ResNet" for kind in type(backbone).__mro__):
        return None
    return partial(_sum, backbone)


def _sum(backbone, i):
    """A block's sum is what its last branch returns and what it was given: a stage's last block has no convolution
    beside its branches (the first one has, but a stage of a single block does not exist).
    """
    if i >= len(backbone.res_layers):
        return None
    stage = next(name for name, layer in backbone.named_children() if layer is backbone.res_layers[i])
    name, block = list(backbone.res_layers[i].named_children())[-1]
    path = f"backbone.{stage}.{name}"
    last = "se" if block.std_senet else "branch2c" if hasattr(block, "branch2c") else "branch2b"
    return Tap(f"{path}.{last}", plus=Tap(path, argument=0))


def norm_of(model, tap):
    """The batch norm that made the (first) tensor of `tap`, or None."""
    if tap.derive is not None or tap.argument is not None:
        return None
    module = find_module(model, tap.path)
    if getattr(module, "act", None):
        return None
    norm = getattr(module, "norm", module)
    return norm if isinstance(norm, _BatchNormBase) else None
