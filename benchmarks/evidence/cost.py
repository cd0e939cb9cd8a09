"""CPU time of an arm's run over that of a plain one, into cost.json: one thread, so it is the time on a quiet machine.

    python benchmarks/evidence/cost.py --data ../shared/data [--set bccd] [--rounds 3] [--steps 6]

Steps of plain and of each kind of teaching are measured in turns, in one process; the medians over all rounds count.
What a part of a run costs that is taught no more is what plain costs.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from benchmarks.evidence.training import PLAIN, Run  # noqa: E402
from ppkd.files.yaml_io import read_yaml  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder that holds the data sets")
    parser.add_argument("--set", default="bccd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output", default=os.path.join(HERE, "cost.json"))
    args = parser.parse_args()
    plan = read_yaml(os.path.join(HERE, "arms.yml"))
    kinds = {arm.get("slim"): name for name, arm in reversed(plan["arms"].items())}
    kinds = {None: PLAIN, **{slim: name for slim, name in kinds.items() if slim}}
    with tempfile.TemporaryDirectory() as args.work:
        args.results = os.path.join(args.work, "results.json")
        seconds = {slim: [] for slim in kinds}
        for _ in range(args.rounds):
            for slim, arm in kinds.items():
                run = Run(plan, args.set, arm, 0, args)
                seconds[slim] += steps_of(run, args.steps)
    middle = {slim: statistics.median(times) for slim, times in seconds.items()}
    found = {name: round(of_arm(arm, middle), 3) for name, arm in plan["arms"].items()}
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(json.dumps(found, indent=1) + "\n")
    print("CPU seconds a step:", {kinds[slim]: round(value, 3) for slim, value in middle.items()})


def of_arm(arm, seconds):
    """An arm's run over a plain one.

    Args:
        arm: its entry of `arms.yml`.
        seconds: of a step, by slim file; those of plain under None.
    """
    first = any("stop_epoch={third}" in option for option in arm.get("options", []))
    taught = (1 / 3 if first else 1) if arm.get("slim") else 0
    return arm.get("times", 1) * (1 + taught * (seconds[arm.get("slim")] / seconds[None] - 1))


def steps_of(run, steps):
    """CPU seconds of some steps of a run, the first two left out; a teacher has the weights it begins with."""
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.trainer import Trainer

    command = run.command()
    given = [o for o in command[command.index("-o") + 1 :] if not o.startswith("teacher.pretrain_weights")]
    slim = command[command.index("--slim_config") + 1] if run.taught else None
    times = []
    with Trainer.open(load_recipe(command[3], slim, [*given, "log_iter=1000"]), max_steps=steps + 2) as trainer:
        take = trainer._train_batch

        def timed(batch):
            begin = time.process_time()
            losses = take(batch)
            times.append(time.process_time() - begin)
            return losses

        trainer._train_batch = timed
        trainer.run()
    return times[2:]


if __name__ == "__main__":
    main()
