"""What several commands need."""

import os
import shlex

from ppkd.bridge.host import place_of_ppdet
from ppkd.errors import UserError
from ppkd.recipe.keys import METHOD_KEYS, RUN_KEYS
from ppkd.terminal.log import logger
from ppkd.terminal.text import printable


def show(text):
    """Print what a command is for; names out of files of others are in it."""
    print(printable(text, lines=True), flush=True)


# What `-o` may say of a run that a detector is not used by.
_OF_TRAINING = (RUN_KEYS | METHOD_KEYS | {"pretrain_weights", "weights", "use_vdl", "vdl_log_dir"}) - {
    "imgsz", "TestReader", "use_gpu",
}  # fmt: skip


def infer_command(config, weights, given=(), teachers=()):
    """The command line that uses a detector, for people to copy.

    Args:
        config: its file.
        weights: their path.
        given: ``key=value`` of ``-o`` by which it was trained; what they say of the detector is taken along.
        teachers: names under which ``-o`` speaks of others.
    """
    kept = [each for each in given if each.split("=")[0].split(".")[0].strip() not in {*_OF_TRAINING, *teachers}]
    # A clone whose own folder this is, without an installation, is found by Python alone.
    python = ["python", "-m"] if os.path.samefile(os.path.dirname(place_of_ppdet()), os.getcwd()) else []
    words = [*python, "ppkd", "infer", "-c", str(config), "-o", f"weights={weights}", *kept, "--infer_dir", "FOLDER"]
    return shlex.join(words)


def with_weights(model, config):
    """The model with the weights of ``-o weights=`` in it, and their file."""
    from ppkd.bridge.weights import load_exactly

    weights = config.get("weights")
    if not weights:
        raise UserError("no weights: give them with -o weights=PATH_OR_URL")
    match = load_exactly(model, weights, "weights", config.get("num_classes"))
    logger().info("%s", match)
    return model, match.path
