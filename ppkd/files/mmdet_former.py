"""Files of former versions of MMDetection, with names and orders as they are today."""

import re

import numpy as np

_FIRST = ("bbox_head.fc_cls.weight", "bbox_head.0.fc_cls.weight")


class _Turned:
    """A tensor of a file, changed when it is asked for."""

    def __init__(self, tensor, change):
        self._tensor, self._change = tensor, change

    def numpy(self):
        return self._change(self._tensor.numpy())


def of_today(state):
    """The tensors of a detector as MMDetection 3 would have them.

    Of a run with averaging MMDetection 2 kept what was not averaged beside it, under names that begin with ``ema_``.
    R-CNNs of MMDetection 1 have no ``roi_head``, and the background is the first class of boxes and masks.

    Args:
        state: name -> tensor with a ``numpy()``.

    Returns:
        The same, and what is left out -> number of tensors.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("ema_") or "." in name}
    left = {"ema": len(state) - len(kept)} if len(kept) < len(state) else {}
    if not any(name in state for name in _FIRST):
        return kept, left
    found = {}
    for name, tensor in kept.items():
        new = f"roi_head.{name}" if name.startswith(("bbox_head.", "mask_head.")) else name
        found[new] = _Turned(tensor, change) if (change := _change(new)) else tensor
    return found, left


def _change(name):
    if re.search(r"\.fc_cls\.(weight|bias)$", name):
        return lambda array: np.roll(array, -1, axis=0)
    if re.search(r"\.fc_reg\.(weight|bias)$", name):  # four rows are of all classes together
        return lambda array: array[4:] if len(array) > 4 else array
    if re.search(r"\.conv_logits\.(weight|bias)$", name):
        return lambda array: array[1:] if len(array) > 1 else array
    return None
