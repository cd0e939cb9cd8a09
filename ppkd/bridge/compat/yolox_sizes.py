"""YOLOX draws the size of its batches from Python's one generator, which the loading thread seeds for every sample."""

import random

from ppkd.bridge.compat.looks import NOT_NEEDED

# Seeded for every step by `loader.seed_step`.
GENERATOR = random.Random()


def draw_sizes_apart():
    """Let YOLOX draw from a generator of its own.

    Without it the sizes depend on how far the loading thread has come, and the augmentation on when the model draws: no
    two runs are alike.

    Needed for: PaddleDetection's wheel and clones up to October 2024 (``YOLOX._get_size``).
    """
    from ppdet.modeling.architectures import yolox

    if getattr(yolox, "random", None) not in (random, GENERATOR):
        return NOT_NEEDED
    yolox.random = GENERATOR
