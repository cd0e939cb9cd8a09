"""YOLOX draws the size of its batches from Python's one generator, which the loading thread seeds for every sample."""

import random

# Seeded for every step by `loader.seed_step`.
GENERATOR = random.Random()


def draw_sizes_apart():
    """Let YOLOX draw from a generator of its own.

    Without it the sizes depend on how far the loading thread has come, and the augmentation on when the model draws: no
    two runs are alike.

    Needed for: paddledet 2.6.0 (``YOLOX._get_size``).
    """
    from ppdet.modeling.architectures import yolox

    yolox.random = GENERATOR
