"""What each of several processes counts by itself: all of it is kept for resuming, and each goes on from its own."""

import paddle
from paddle import distributed as dist


class OfRanks:
    """Buffers of which every process has its own: sums that are put together by addition once they are needed.

    Which they are a layer says in ``of_rank``, a tuple of names.

    Args:
        layer: or None, which has none.
    """

    def __init__(self, layer):
        named = layer.named_sublayers(include_self=True) if layer is not None else ()
        self._tensors = {
            f"{path}.{name}": getattr(each, name) for path, each in named for name in getattr(each, "of_rank", ())
        }
        self._all = None

    def gather(self):
        """Take those of all processes, each of which has to come here, for the next `state`."""
        if not self._tensors or dist.get_world_size() == 1:
            return
        every = {}
        for name, tensor in self._tensors.items():
            every[name] = []
            dist.all_gather(every[name], tensor)
        self._all = [{name: found[rank] for name, found in every.items()} for rank in range(dist.get_world_size())]

    def state(self):
        """What resuming needs: one entry a process; None if there is one, whose layer has them."""
        return self._all

    def restore(self, state):
        """Go on from what this process had, and what others had that are none any more.

        None is a state of one process, or of before there was any: the first goes on from what its layer has.
        """
        if not self._tensors or (state is None and dist.get_rank() == 0):
            return
        own = (state or [])[dist.get_rank() :: dist.get_world_size()]
        with paddle.no_grad():
            for name, tensor in self._tensors.items():
                paddle.assign(sum((each[name] for each in own), paddle.zeros_like(tensor)), tensor)
