"""A detector is counted while it is built: keys such as ``depth_mult`` make it larger than a machine, or endless."""

import contextlib
import math

from ppkd.errors import UserError

# The deepest networks in use have a third of it.
_TENSORS = 10_000
_WIDTH = 4  # bytes of a number


@contextlib.contextmanager
def bounded():
    """A block in which a detector is built: each of its parameters is counted before it is made.

    Raises:
        UserError: the parameters need more memory than is free, or are more than any detector has.
    """
    from paddle import nn

    former, free, tensors, size = nn.Layer.create_parameter, free_memory(), 0, 0

    def create_parameter(self, shape, *args, **options):
        nonlocal tensors, size
        tensors += 1
        size += _WIDTH * math.prod(map(int, shape))
        if free is not None and size > free:
            raise UserError(
                f"the detector of this config does not fit into the memory: its first {tensors} parameters take "
                f"{size / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. Look at num_classes, width_mult and the like"
            )
        if tensors > _TENSORS:
            raise UserError(
                f"the detector of this config has more than {_TENSORS} parameters, which no detector has. Look at "
                "depth_mult and the like"
            )
        return former(self, shape, *args, **options)

    nn.Layer.create_parameter = create_parameter
    try:
        yield
    finally:
        nn.Layer.create_parameter = former


def free_memory():
    """Bytes that a model on the CPU can still take, swap included; None on a GPU, or where the system does not say."""
    import paddle

    if not paddle.device.get_device().startswith("cpu"):
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in file)}
        free = sizes["MemAvailable"] + sizes.get("SwapFree", 0)
    except (OSError, KeyError, ValueError, IndexError):
        return None
    # Of a container; "max" without one.
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
        free = min(free, int(file.read()))
    return free
