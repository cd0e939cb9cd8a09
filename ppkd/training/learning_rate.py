"""ppdet's schedule of the learning rate, and what users get wrong about it."""

from ppkd.bridge.workspace import create
from ppkd.errors import UserError
from ppkd.recipe.limits import RATES
from ppkd.terminal.log import logger


def learning_rate(config, steps):
    """The schedule of the current scope.

    Args:
        config: the run's config.
        steps: of an epoch.

    Raises:
        UserError: a decay that ppdet would look for a warm-up beside; schedulers or parameters that it does not know;
            so many steps that the rates, which ppdet lists, do not fit into the memory.
    """
    schedulers = (config.get("LearningRate") or {}).get("schedulers") or []
    if len(schedulers) == 1 and schedulers[0].get("use_warmup", True):
        raise UserError(
            "LearningRate.schedulers has one entry, and PaddleDetection takes a decay and after it a warm-up: add "
            "{name: LinearWarmup, start_factor: 0.1, steps: 500}, or use_warmup: false to the decay"
        )
    _check_length(schedulers, steps)
    ends = [scheduler["max_epochs"] for scheduler in schedulers if scheduler.get("max_epochs") is not None]
    epochs = int(config.get("epoch") or 1)
    if ends and ends[0] < epochs:  # `-o epoch=` does not move it
        logger().warning(
            "the learning rate ends after epoch %d of %d: set LearningRate.schedulers along with epoch "
            "(--epochs moves both)",
            ends[0], epochs,
        )  # fmt: skip
    return create("LearningRate", steps)


def _check_length(schedulers, steps):
    for scheduler in schedulers if len(schedulers) > 1 else ():
        lengths = {key: scheduler.get(key) for key in ("max_epochs", "epochs", "steps")}
        for key, length in lengths.items():
            count = length * (1 if key == "steps" else steps) if isinstance(length, int) else 0
            if count > RATES:
                raise UserError(
                    f"LearningRate.schedulers: {key} is {length}, which makes {count} learning rates, and {RATES} are "
                    "the most"
                )
