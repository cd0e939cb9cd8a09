"""Several processes: data parallel training in which no process waits for a gradient that never comes."""

import contextlib

import paddle
from paddle import distributed as dist
from paddle import nn

from ppkd.bridge.bad_images import STAND_IN


class Connected(nn.Layer):
    """A model whose every trained parameter gets a gradient in every step, if it is only zero.

    Which parameters a step reaches changes: terms have epochs, a box branch idles without a box, and it may idle on one
    process alone. Paddle's reducer waits for all of them, or searches the graph in every step
    (``find_unused_parameters``). A batch whose images were all bad holds a stand-in, with which this process takes part
    in what heads and terms exchange, and whose loss counts nothing. A loss that is not finite makes every gradient NaN,
    so that all processes see it after the exchange.

    Args:
        model: returns a dict with ``loss`` in train mode.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        losses = self.model(batch)
        if not self.training:
            return losses
        reached = [p.sum().astype("float32") for p in self.model.parameters() if not p.stop_gradient]
        nothing = losses["loss"].detach().astype("float32").reshape([]) * 0.0
        own = losses["loss"] * 0.0 if STAND_IN in batch else losses["loss"]
        return {**losses, "loss": own + paddle.add_n(reached) * nothing}


def distribute(model):
    """The model under data parallel, if there are several processes; else the model itself."""
    if dist.get_world_size() == 1:
        return model
    return paddle.DataParallel(Connected(model), find_unused_parameters=False)


def without_exchange(model, is_last):
    """A block in which gradients add up locally; they are exchanged in the last step before the optimizer's."""
    if is_last or not isinstance(model, paddle.DataParallel):
        return contextlib.nullcontext()
    return model.no_sync()

