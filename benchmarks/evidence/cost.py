"""CPU time of an arm's run over that of a plain one, of each arm of a set, into cost.json: one thread, so it is the
time on a quiet machine.

    python benchmarks/evidence/cost.py --data ../shared/data --work FOLDER [--set bccd_given] [--rounds 3] [--steps 6]

Steps of plain and of each kind of teaching are measured in turns, in one process; the medians over all rounds count.
What a part of a run costs that is taught no more is what plain costs. With a bank the teacher is asked in as many
epochs as there are views; what follows costs what steps do that read a bank.
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
    parser.add_argument("--work", required=True, help="folder of the runs; the set's teacher is there, or is given")
    parser.add_argument("--set", default="bccd_given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--output", default=os.path.join(HERE, "cost.json"))
    args = parser.parse_args()
    plan = read_yaml(os.path.join(HERE, "arms.yml"))
    run_of = {arm for stage in plan["stages"] if stage["set"] == args.set for arm in stage["arms"]}
    arms = {name: arm for name, arm in plan["arms"].items() if name in run_of}
    kinds = {kind: name for name, arm in reversed(arms.items()) for kind in kinds_of(arm)}
    kinds = {(None, False): PLAIN, **{kind: name for kind, name in kinds.items() if kind[0]}}
    args.results = os.path.join(args.work, "results.json")
    weights = Run(plan, args.set, PLAIN, 0, args).teacher().weights()
    with tempfile.TemporaryDirectory() as args.work:
        seconds = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind, arm in kinds.items():
                run = Run(plan, args.set, arm, 0, args)
                run.thin()
                seconds[kind] += steps_of(run, args.steps, kind[1], weights)
    middle = {kind: statistics.median(times) for kind, times in seconds.items()}
    epochs = plan["sets"][args.set]["epochs"]
    found = {name: round(of_arm(arm, middle, epochs), 3) for name, arm in arms.items()}
    kept = {}
    if os.path.exists(args.output):
        with open(args.output, encoding="utf-8") as file:
            kept = json.load(file)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(json.dumps({**kept, args.set: found}, indent=1, sort_keys=True) + "\n")
    names = {kind: f"{name}{', reading' * kind[1]}" for kind, name in kinds.items()}
    print("CPU seconds a step:", {names[kind]: round(value, 3) for kind, value in middle.items()})


def views_of(arm):
    """How many views the bank of an arm has; 0 without one."""
    return sum(int(o.partition("=")[2]) for o in arm.get("options", []) if o.startswith("distill.bank.views="))


def kinds_of(arm):
    """What kinds of steps an arm takes: its slim file, and whether a bank is read."""
    return [(arm.get("slim"), False)] + [(arm.get("slim"), True)] * bool(views_of(arm))


def of_arm(arm, seconds, epochs):
    """An arm's run over a plain one.

    Args:
        arm: its entry of `arms.yml`.
        seconds: of a step, by kind (see `kinds_of`).
        epochs: of a plain run.
    """
    of_plain, slim = seconds[None, False], arm.get("slim")
    extra = 0
    if slim:
        first = any("stop_epoch={third}" in option for option in arm.get("options", []))
        taught, views = epochs // 3 if first else epochs, views_of(arm)
        asked = min(views, taught) if views else taught
        extra = asked * (seconds[slim, False] / of_plain - 1)
        extra += (taught - asked) * (seconds[slim, True] / of_plain - 1) if views else 0
    return arm.get("times", 1) * (1 + extra / epochs)


def steps_of(run, steps, reading, weights):
    """CPU seconds of some steps of a run, the first two left out.

    Args:
        run: `training.Run`.
        steps: how many.
        reading: those that read a bank of one view, which the first epoch has filled.
        weights: the teacher's.
    """
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.stages import Stages
    from ppkd.training.trainer import Trainer

    command = run.command()
    left_out = "teacher.pretrain_weights", "distill.bank"
    given = [o for o in command[command.index("-o") + 1 :] if not o.startswith(left_out)]
    given += [f"teacher.pretrain_weights={weights}"] * run.taught + ["distill.bank.views=1"] * reading
    slim = command[command.index("--slim_config") + 1] if run.taught else None
    times = []
    recipe = load_recipe(command[3], slim, [*given, "log_iter=1000"])
    batches = len(Stages.of(recipe, 0).loader(0)) if reading else 0
    with Trainer.open(recipe, max_steps=batches + steps + 2) as trainer:
        take = trainer._train_batch

        def timed(batch):
            begin = time.process_time()
            losses = take(batch)
            times.append(time.process_time() - begin)
            return losses

        trainer._train_batch = timed
        trainer.run()
    return times[batches + 2 :]


if __name__ == "__main__":
    main()
