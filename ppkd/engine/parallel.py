"""Several processes: data parallel training in which no process waits for a gradient that never comes."""

import paddle
from paddle import distributed as dist
from paddle import nn
from paddle.distributed.parallel import sync_params_buffers

from ppkd.bridge.bad_images import STAND_IN
from ppkd.engine.packing import packed
from ppkd.losses.ranks import summed


class Synchronised(nn.Layer):
    """A model on one of several ranks: after each step's backward, all of them average their gradients at once.

    Which parameters a step reaches changes: terms have epochs, a box branch idles without a box, and it may idle on one
    rank alone. What one rank has reached gets a gradient on all, of zeros where it was not reached; what none has
    reached gets none, and stands still, as it would on one rank.

    A batch whose images were all bad holds a stand-in, with which this rank takes part in what heads and terms
    exchange, and whose loss counts nothing. A loss that is not finite makes every gradient NaN on all ranks.

    Args:
        model: returns a dict with ``loss`` in train mode. Its method ``idle``, if it has one, gives the parameters
            that no rank reaches now. All ranks begin with rank 0's parameters and buffers.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        sync_params_buffers(model, fuse_params=False)
        # Names of the parameters that have a gradient on every rank, which they keep: clearing leaves zeros.
        self._moving = set()
        # Zero, or NaN if a loss since the last exchange was not finite.
        self._nothing = None

    def forward(self, batch):
        losses = self.model(batch)
        if not self.training:
            return losses
        nothing = losses["loss"].detach().astype("float32").reshape([1]) * 0.0
        self._nothing = nothing if self._nothing is None else self._nothing + nothing
        return {**losses, "loss": losses["loss"] * 0.0} if STAND_IN in batch else losses

    @paddle.no_grad()
    def exchange(self):
        """Average what the ranks have of gradients; all of them have to call it, once before the optimizer's step.

        Only where a parameter without a gradient may have got its first one on another rank, the host has to wait.
        """
        idle = {id(p) for p in self.model.idle()} if hasattr(self.model, "idle") else set()
        trained = [p for p in self.model.parameters() if not p.stop_gradient]
        sent = [p for p in trained if p.name in self._moving or id(p) not in idle]
        asked = [p for p in sent if p.name not in self._moving]
        reached = [p.grad is not None for p in asked]
        signs, (factor, *told) = [paddle.zeros([1]) if self._nothing is None else self._nothing], (None,)
        if asked:
            signs.append(paddle.to_tensor([float(each) for each in reached]))
        groups = {paddle.float32: []}
        for p in sent:
            groups.setdefault(p.dtype, []).append(p)
        averaged = []
        for parameters in groups.values():
            copies, whole = packed([*signs, *(paddle.zeros_like(p) if p.grad is None else p.grad for p in parameters)])
            summed([whole])
            if signs:  # with the first group
                factor, *told = copies[: len(signs)]
                factor = factor + 1 / dist.get_world_size()
            averaged.append((parameters, copies[len(signs) :], whole))
            signs = []
        if not all(reached):
            asked = [p for p, count in zip(asked, told[0].tolist()) if count != 0]
        self._moving |= {p.name for p in asked}
        for parameters, copies, whole in averaged:
            whole.multiply_(factor.astype(whole.dtype))
            for p, copy in zip(parameters, copies):
                if p.name in self._moving:
                    p._copy_gradient_from(copy)
        self._nothing = None


def distribute(model):
    """The model under data parallel, if there are several processes; else the model itself."""
    return model if dist.get_world_size() == 1 else Synchronised(model)


def exchange(model):
    """What `Synchronised.exchange` does, where there is anyone to exchange with."""
    if isinstance(model, Synchronised):
        model.exchange()
