"""RTMDet's learning rate: constant after the warm-up, then a cosine (arXiv 2212.07784, table 10)."""

import math
from functools import partial


class FlatCosineDecay:
    """A schedule for ppdet's ``LearningRate.schedulers``: beside `LinearWarmup`, which has to follow it there.

    Args:
        max_epochs: where the cosine ends.
        flat_epochs: where it begins.
        min_lr_ratio: what the rate ends at, as a part of the base rate.
    """

    # ppdet asks for it: the warm-up's steps are handed to the call.
    use_warmup = True

    def __init__(self, max_epochs, flat_epochs, min_lr_ratio=0.05):
        if not 0 <= flat_epochs < max_epochs:
            raise ValueError(f"flat_epochs has to be from 0 to less than max_epochs {max_epochs}, found {flat_epochs}")
        self.max_epochs, self.flat_epochs, self.min_lr_ratio = max_epochs, flat_epochs, min_lr_ratio

    def __call__(self, base_lr, boundary, value, step_per_epoch):
        """The rate of every step, as a Paddle scheduler.

        Args:
            base_lr: the constant rate.
            boundary, value: the warm-up's steps (not needed), and their rates and the one after them.
            step_per_epoch: steps in an epoch.
        """
        from paddle.optimizer.lr import LambdaDecay

        flat, end = (int(epochs * step_per_epoch) for epochs in (self.flat_epochs, self.max_epochs))
        # Not Paddle's PiecewiseDecay, as ppdet's own have it: it looks through all steps before the one that it is at.
        return LambdaDecay(base_lr, partial(_factor, [x / base_lr for x in value[:-1]], flat, end, self.min_lr_ratio))


def _factor(warmup, flat, end, least, step):
    if step < len(warmup):
        return warmup[step]
    part = min(max(step - flat, 0) / (end - flat), 1.0)
    return least + (1 - least) * (1 + math.cos(math.pi * part)) / 2


def register():
    """ppdet looks schedulers up in its module by name."""
    from ppdet.optimizer import optimizer

    optimizer.FlatCosineDecay = FlatCosineDecay
