"""What measuring gradients costs: a step in which they are measured beside one in which they are not, in turns.

    python benchmarks/training/gradients.py -c STUDENT.yml --slim_config TEACHER.yml [--pairs 8] [-o ...]

CPU seconds of one thread. A run measures in one of `standing.WATCH` steps at most, so the last number printed is the
share of a run at most. With OptimizerBuilder's Adam or AdamW the two updates' lengths are measured as well.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from ppkd.recipe.recipe import load_recipe
from ppkd.training import standing


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", "--config", required=True)
    parser.add_argument("--slim_config", required=True)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("-o", "--opt", nargs="*", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = [*args.opt, f"save_dir={folder}", "log_iter=100000"]
        with_, without = times(load_recipe(args.config, args.slim_config, given), args.pairs)
    extra = statistics.median(a - b for a, b in zip(with_, without))
    step = statistics.median(without)
    print(f"step {step:.3f} s, measuring {extra:.3f} s more, {extra / step / standing.WATCH:.2%} of a run at most")


def times(recipe, pairs):
    """CPU seconds of steps with and without measuring, the first pair left out."""
    from ppkd.training.trainer import Trainer

    found = []
    with Trainer.open(recipe, max_steps=2 * pairs + 2) as trainer:
        take, take_step = trainer._train_batch, trainer._update.begin

        def timed(batch):
            trainer.distill.watched = len(found) % 2 == 0
            begin = time.process_time()
            losses = take(batch)
            found.append(time.process_time() - begin)
            return losses

        trainer._train_batch = timed
        trainer._update.begin = lambda watched: take_step(len(found) % 2 == 0)
        trainer.run()
    return found[2::2], found[3::2]


if __name__ == "__main__":
    main()
