"""What a distilled run costs once its distillation is over, beside plain training: seconds a step, and memory.

    python benchmarks/training/after_distillation.py [--repeats 3] [--images 160] [--teacher WEIGHTS]

The demo's student trains for two epochs, alone and with the demo's teacher in the first of them
(`distill.stop_epoch: 1`). Each run is a process of its own with one thread, the two kinds take turns, and the figures
are medians of an epoch's steps, in seconds that the training thread computes (so that other work on the machine does
not count), and the memory (resident set) held at the end.
"""

# ruff: noqa: E402
import argparse
import gc
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
SLIM = os.path.join(ROOT, "configs/slim/distill/ppyoloe_plus_shapes_fgd.yml")
KINDS = ("plain", "distilled, then alone")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=160, help="of an epoch; a step has 8")
    parser.add_argument("--teacher", default=os.path.join(ROOT, "ppkd/data/teacher_shapes.pdparams"))
    parser.add_argument("--inside", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        return inside(*args.inside, args.teacher)
    found = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        from ppkd.data.shapes import generate

        generate(os.path.join(folder, "data"), train=args.images, val=2)
        for number in range(args.repeats):
            for kind in KINDS:
                print(f"run {number + 1} of {args.repeats}: {kind}", flush=True)
                command = [sys.executable, os.path.abspath(__file__), "--teacher", args.teacher]
                command += ["--inside", kind, folder]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
                found[kind].append(json.loads(output.splitlines()[-1]))
    rows = [["", "first epoch, s/step", "second epoch, s/step", "memory at the end, MB"]]
    medians = {kind: [statistics.median(column) for column in zip(*runs)] for kind, runs in found.items()}
    rows += [[kind, f"{a:.3f}", f"{b:.3f}", f"{c / 1e6:.0f}"] for kind, (a, b, c) in medians.items()]
    plain, distilled = (medians[kind] for kind in KINDS)
    rows.append(["ratio", *(f"{y / x:.3f}" for x, y in zip(plain, distilled))])
    print(text_table(rows))
    return 0


def inside(kind, folder, teacher):
    """Train one kind; prints the median seconds of a step of both epochs and the bytes held at the end."""
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.trainer import Trainer

    given = [f"dataset_dir={folder}/data", f"save_dir={folder}/{kind[:5]}", "epoch=2", "snapshot_epoch=5"]
    if kind != KINDS[0]:
        given += [f"teacher.pretrain_weights={teacher}", "distill.stop_epoch=1"]
    recipe = load_recipe(STUDENT, SLIM if kind != KINDS[0] else None, given)
    times = {0: [], 1: []}
    with Trainer.open(recipe) as trainer:
        step = trainer._train_batch

        def timed(batch):
            begin = time.thread_time()
            losses = step(batch)
            times[trainer.epoch].append(time.thread_time() - begin)
            return losses

        trainer._train_batch = timed
        trainer._snapshot = lambda name: {}
        trainer.run()
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(json.dumps([*(statistics.median(seconds[2:]) for seconds in times.values()), held]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
