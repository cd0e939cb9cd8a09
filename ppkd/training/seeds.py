"""What random numbers are drawn from: seed, epoch, batch and rank alone, so that no state of them is kept to resume."""

import random

import numpy as np
import paddle

from ppkd.bridge.compat import yolox_sizes

_BESIDE = 0x0B5E55


def sample_seed(seed, epoch, index):
    """The number that an image of an epoch is drawn with."""
    return number_of(seed, epoch, index)


def seed_augmentation(seed):
    """Seed what ppdet's transforms draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def seed_everything(seed):
    """Seed Python, NumPy and Paddle, for initial weights."""
    seed_augmentation(seed)
    paddle.seed(seed)


def seed_step(seed, epoch, step, rank):
    """Seed what a step draws (dropout, random masks, YOLOX's sizes), so that no state is needed to resume."""
    paddle.seed(step_seed(seed, epoch, step, rank))
    # Python's own generator belongs to the loading thread. Sizes are those of all ranks, or one would wait for others.
    yolox_sizes.GENERATOR.seed(number_of(seed, epoch, step))


def other_seed(seed):
    """A seed for a second stream of images, whose order and augmentation are not the first one's."""
    return number_of(seed, _BESIDE)


def step_seed(seed, epoch, step, rank):
    """The number that Paddle's generator is seeded with for a step."""
    return number_of(seed, epoch, step, rank)


def number_of(*place):
    """A number that goes with others, and with no other ones."""
    return int(np.random.SeedSequence(place).generate_state(1)[0])
