"""What several commands need."""

from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.terminal.text import printable


def show(text):
    """Print what a command is for; names out of files of others are in it."""
    print(printable(text, lines=True), flush=True)


def start_device(config):
    """Choose the device and, under ``paddle.distributed.launch``, join the other processes.

    ``use_gpu: true`` without a GPU goes on with the CPU after one warning, and says so in `config`.
    """
    import paddle
    from paddle import distributed as dist

    wanted = bool(config.get("use_gpu", False))
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if wanted and not has_gpu:
        logger().warning("use_gpu: true, but Paddle finds no GPU; going on with the CPU (-o use_gpu=false is silent)")
        config["use_gpu"] = False
    paddle.set_device("gpu" if wanted and has_gpu else "cpu")
    if dist.get_world_size() > 1:
        dist.init_parallel_env()


def with_weights(model, config):
    """The model with the weights of ``-o weights=`` in it, and their file."""
    from ppkd.files.weights import load_exactly

    weights = config.get("weights")
    if not weights:
        raise UserError("no weights: give them with -o weights=PATH_OR_URL")
    match = load_exactly(model, weights, "weights", config.get("num_classes"))
    logger().info("%s", match)
    return model, match.path
