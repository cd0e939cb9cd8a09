"""The device that Paddle computes on, and the other processes beside this one."""

import os

from ppkd.errors import UserError
from ppkd.terminal.log import logger

# Of Paddle for the CPU, for CUDA, for CUDA.
_DETERMINISTIC = ("FLAGS_cpu_deterministic", "FLAGS_cudnn_deterministic", "FLAGS_embedding_deterministic")


def has_gpu():
    """Whether Paddle finds a GPU."""
    import paddle

    return bool(paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0)


def empty_cache():
    """Give back what Paddle holds of a GPU's memory and does not use."""
    import paddle

    if paddle.get_device().startswith("gpu"):
        paddle.device.cuda.empty_cache()


def start_device(config):
    """Choose the device and, under ``paddle.distributed.launch``, join the other processes.

    ``use_gpu: true`` without a GPU goes on with the CPU after one warning, and says so in `config`.

    Raises:
        UserError: ``deterministic`` is no flag.
    """
    import paddle
    from paddle import distributed as dist

    wanted = bool(config.get("use_gpu", False))
    there = has_gpu()
    if wanted and not there:
        logger().warning("use_gpu: true, but Paddle finds no GPU; going on with the CPU (-o use_gpu=false is silent)")
        config["use_gpu"] = False
    on_gpu = wanted and there
    paddle.set_device("gpu" if on_gpu else "cpu")
    _repeat_to_the_bit(config)
    if dist.get_world_size() > 1:
        if not on_gpu:
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # a Paddle for CUDA would take nccl, which knows no CPU
        dist.init_parallel_env()


def _repeat_to_the_bit(config):
    """Carry out ``deterministic: true``: operators whose result does not depend on which thread comes first."""
    wanted = config.get("deterministic", False)
    if not isinstance(wanted, bool):
        raise UserError(f"deterministic has to be true or false, found {wanted!r}")
    if not wanted:
        return
    import paddle

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what NVIDIA asks for, before the first product
    for name in _DETERMINISTIC:
        try:
            paddle.set_flags({name: True})
        except ValueError:  # not of what this Paddle is built for
            continue
        logger().info("deterministic: %s", name)
