"""Plain training and evaluation beside ppdet's own Trainer: the same file, reader and data, in turns.

    python benchmarks/training/beside_ppdet.py [--repeats 3] [--steps 100] [--workers 0 2]

Each run is a process of its own with one thread, and the two sides take turns. With 0 workers a step is what the
process computes in it, so that other work on the machine hardly counts; with workers, which compute beside it, it is
the time that passes. Medians of all steps but the first ten. Evaluation is of 200 images, pycocotools included.
"""

# ruff: noqa: E402
import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from ppkd.terminal.table import text_table

STUDENT = os.path.join(ROOT, "configs/demo/ppyoloe_plus_student_shapes.yml")
SIDES = ("ours", "ppdet")
BATCH, FIRST = 8, 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--inside", nargs=3, metavar=("SIDE", "WORKERS", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        return inside(*args.inside)
    steps, evaluations = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        from ppkd.data.shapes import generate

        generate(os.path.join(folder, "data"), train=BATCH * (args.steps + FIRST), val=200)
        for number, workers, side in itertools.product(range(args.repeats), args.workers, SIDES):
            print(f"run {number + 1} of {args.repeats}: {side}, {workers} workers", flush=True)
            found = in_a_process(side, workers, folder)
            steps.setdefault((workers, side), []).extend(found["steps"])
            evaluations.setdefault((workers, side), []).append(found["evaluation"])
    step = ["s/step: ours", "ppdet's", "ratio", "images/s: ours", "ppdet's"]
    evaluation = ["evaluation, s: ours", "ppdet's"]
    rows = [["workers", *step, *evaluation, "ratio"]]
    for workers in args.workers:
        (ours, theirs), (our_eval, their_eval) = (
            [statistics.median(found[workers, side]) for side in SIDES] for found in (steps, evaluations)
        )
        rows.append([
            str(workers), f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.3f}", f"{BATCH / ours:.2f}",
            f"{BATCH / theirs:.2f}", f"{our_eval:.2f}", f"{their_eval:.2f}", f"{our_eval / their_eval:.3f}",
        ])  # fmt: skip
    print(text_table(rows))
    return 0


def in_a_process(side, workers, folder):
    """What one side gave: seconds of each step, and of the evaluation."""
    command = [sys.executable, os.path.abspath(__file__), "--inside", side, str(workers), folder]
    run = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{side} with {workers} workers: exit {run.returncode}\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def inside(side, workers, folder):
    """Train for an epoch and evaluate; prints the seconds as JSON."""
    from ppkd.recipe.recipe import load_recipe

    given = [f"dataset_dir={folder}/data", f"save_dir={folder}/{side}", "epoch=1", "snapshot_epoch=5"]
    recipe = load_recipe(STUDENT, None, [*given, f"worker_num={workers}", "log_iter=25"])
    clock = time.perf_counter if int(workers) else time.process_time
    ends = watched_steps(recipe.student["OptimizerBuilder"]["optimizer"]["type"], clock)
    evaluation = {"ours": ours, "ppdet": ppdets}[side](recipe)
    begin = clock()
    evaluation()
    seconds = clock() - begin
    print(json.dumps({"steps": [b - a for a, b in zip(ends[FIRST:], ends[FIRST + 1 :])], "evaluation": seconds}))
    return 0


def watched_steps(optimizer, clock):
    """List that gets the time at each step of an optimizer of this name, whoever takes it."""
    import paddle

    kind = getattr(paddle.optimizer, optimizer)
    ends, step = [], kind.step

    def watched(self):
        step(self)
        ends.append(clock())

    kind.step = watched
    return ends


def ours(recipe):
    """Train by `ppkd.training`; returns the evaluation as a function without arguments."""
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student
    from ppkd.training.evaluation import evaluate
    from ppkd.training.trainer import Trainer

    with Trainer.open(recipe) as trainer:
        trainer.run()
    model = build_student(recipe, load=False)

    def evaluation():
        with scope(recipe.student) as table:
            evaluate(model, table)

    return evaluation


def ppdets(recipe):
    """Train by ppdet's Trainer; returns its evaluation as a function without arguments."""
    import paddle

    from ppkd.bridge.workspace import import_ppdet, scope

    import_ppdet()
    paddle.set_device("cpu")
    from ppdet.engine import Trainer

    config = recipe.student | {"filename": "student"}
    with scope(config) as table:
        Trainer(table, mode="train").train()

    def evaluation():
        with scope(config) as table:
            Trainer(table, mode="eval").evaluate()

    return evaluation


if __name__ == "__main__":
    sys.exit(main())
