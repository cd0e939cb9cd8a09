"""What several commands need."""

from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.terminal.text import printable


def show(text):
    """Print what a command is for; names out of files of others are in it."""
    print(printable(text, lines=True), flush=True)


def with_weights(model, config):
    """The model with the weights of ``-o weights=`` in it, and their file."""
    from ppkd.bridge.weights import load_exactly

    weights = config.get("weights")
    if not weights:
        raise UserError("no weights: give them with -o weights=PATH_OR_URL")
    match = load_exactly(model, weights, "weights", config.get("num_classes"))
    logger().info("%s", match)
    return model, match.path
