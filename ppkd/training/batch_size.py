"""How many images a step is made of, and the learning rate that goes with it."""

from ppkd.errors import UserError
from ppkd.terminal.log import logger


class BatchSize:
    """Compares the images of a step with those that the recipe's learning rate is for.

    A rate goes with a number of images a step (Goyal et al., 2017): one GPU in place of eight is another recipe, which
    nothing would tell. ``total_batch_size`` in a config is that number; ``scale_lr: true`` multiplies
    ``LearningRate.base_lr`` by the ratio.

    Args:
        config: the run's config; with ``scale_lr`` its ``base_lr`` is changed in place.
        ranks: number of processes.

    Attributes:
        accumulate: batches of one step on one rank, the config's ``accumulate``.
        real: images of one step over all ranks.

    Raises:
        UserError: values of the wrong kind, or no reader.
    """

    def __init__(self, config, ranks):
        self.accumulate = accumulate = count(config, "accumulate", 1, least=1)
        if (reader := config.get("TrainReader")) is None:
            raise UserError("TrainReader: the config has none, so nothing says which images a step is made of")
        self.real = (reader.get("batch_size") or 1) * ranks * accumulate
        wanted, scale = config.get("total_batch_size"), config.get("scale_lr", False)
        if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1):
            raise UserError(f"total_batch_size has to be a number of images, found {wanted!r}")
        if not isinstance(scale, bool):
            raise UserError(f"scale_lr has to be true or false, found {scale!r}")
        if scale and wanted is None:
            raise UserError("scale_lr: the config has no total_batch_size, so there is no ratio to scale by")
        if wanted is None or wanted == self.real:
            return
        rate = (config.get("LearningRate") or {}).get("base_lr")
        if rate is None:
            raise UserError("LearningRate.base_lr has to be a number, found None")
        scaled = rate * self.real / wanted
        if scale:
            config["LearningRate"]["base_lr"] = scaled
            logger().info("learning rate %g for %d images a step becomes %g for %d", rate, wanted, scaled, self.real)
        else:
            logger().warning(
                "the learning rate %g is for %d images a step, and this run has %d: -o scale_lr=true makes it %g, "
                "-o accumulate=%d makes the steps larger",
                rate, wanted, self.real, scaled, max(1, round(wanted / (self.real / accumulate))),
            )  # fmt: skip


def count(config, key, default, least=0):
    """A whole number of the config.

    Raises:
        UserError: it is none, or below `least`.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{key} has to be a whole number from {least}, found {value!r}")
    return value
