"""The tensors of a layer, as a part of a run's state."""

import contextlib

from ppkd.errors import UserError


class Weights:
    """All tensors of a layer.

    Args:
        layer: or None, which has no state.
        what: what it is, for messages.
        tensors: function to its tensors by name; the layer's own ``state_dict`` if not given.
        whole: function to a block in which the layer takes them, in float32.
    """

    def __init__(self, layer, what, tensors=None, whole=contextlib.nullcontext):
        self._layer, self._what, self._whole = layer, what, whole
        self._tensors = tensors or (layer and layer.state_dict)

    def state(self):
        """What resuming needs, or None."""
        return self._tensors() if self._layer is not None else None

    def restore(self, state):
        """Go on with the tensors of `state`.

        Raises:
            UserError: they are not exactly those of the layer.
        """
        if self._layer is None:
            return
        with self._whole():
            missing, unexpected = self._layer.set_state_dict(state)
        if missing or unexpected:
            raise UserError(
                f"-r: the checkpoint is of another {self._what}; these do not fit: {[*missing, *unexpected][:4]}"
            )
