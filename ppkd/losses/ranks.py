"""What several processes agree on: sums, means, and whether any says yes. One process has them already."""

import paddle
from paddle import distributed as dist


def summed(tensors):
    """Each of `tensors`, which are changed, as the sum over all ranks; themselves where there is one."""
    if dist.get_world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
    return tensors


def averaged(tensor):
    """`tensor`, which is changed, as the mean over all ranks; itself where there is one."""
    ranks = dist.get_world_size()
    (total,) = summed([tensor])
    return total / ranks if ranks > 1 else total


def of_first_rank(tensor):
    """`tensor`, which is changed, as rank 0 has it, on every rank."""
    if dist.get_world_size() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def any_of_them(flag):
    """Whether `flag` is true on any rank."""
    if dist.get_world_size() == 1:
        return flag
    told = paddle.to_tensor([float(flag)])
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told.item())
