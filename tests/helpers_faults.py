"""Run by test_faults_distributed.py on two ranks (`helpers_ranks`): faults of one, and what both have then."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ppkd  # noqa: F401  # before paddle
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer
from tests.helpers_distributed import parameters
from tests.helpers_ranks import main


def train(config, slim, overrides, nan_rank=None):
    """Train a recipe to its end; what this rank has then.

    Args:
        nan_rank: rank whose teacher gives NaN in its first batch.
    """
    with Trainer.open(load_recipe(config, slim, overrides)) as trainer:
        if trainer.rank == nan_rank:
            neck = trainer.distill.teachers["teacher"].neck
            neck.register_forward_post_hook(
                lambda layer, given, maps: [x * float("nan") for x in maps] if trainer.batch == 0 else maps
            )
        before = parameters(trainer)
        trainer.run()
    numerics = trainer.numerics.state()
    return {
        "before": before, "after": parameters(trainer), "steps": trainer.step, "skipped": numerics["skipped"],
        "bad": sorted(os.path.basename(path) for path in trainer._stages.bad.found),
    }  # fmt: skip


if __name__ == "__main__":
    main(train)
