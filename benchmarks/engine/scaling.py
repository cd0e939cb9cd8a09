"""Rows of how time grows: with boxes, resolution, batch, levels, terms and processes."""

import json
import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks.losses import rows as losses
from benchmarks.reporting.rows import Row
from benchmarks.study.timing import interleaved

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STUDENT = os.path.join(ROOT, "configs/demo/ppyoloe_plus_student_shapes.yml")
TEACHER = os.path.join(ROOT, "configs/demo/ppyoloe_plus_teacher_shapes.yml")
SLIM = os.path.join(ROOT, "configs/slim/distill/ppyoloe_plus_shapes_fgd.yml")
WEIGHTS = os.path.join(ROOT, "ppkd/data/teacher_shapes.pdparams")
SIDES = ("ours", "ppdet")
CHANNELS = 256


def _of_fgd(what, builds, first, repeats=5):
    """Rows of FGD's loss, ours beside ppdet's.

    Args:
        what: the quantity that grows.
        builds: its values -> function of the side that gives a step.
        first: the value that ratios refer to.
    """
    steps = {(side, value): build(side) for value, build in builds.items() for side in SIDES}
    seconds = interleaved(steps, repeats, warmup=1)
    note = f"our time by that of {what} {first}, over the ratio of the two"
    rows = []
    for value in builds:
        ours, theirs = seconds["ours", value], seconds["ppdet", value]
        grown = ours / seconds["ours", first] / (value / first)
        beside = f"{note}; {theirs / ours:.1f} times as fast as ppdet's"
        rows.append(Row(f"fgd, {what} {value}", ours, theirs, None, grown, note=beside))
    return rows


def scale_boxes():
    return losses.fgd_of_boxes((1, 3, 10, 30, 100))


def scale_resolution():
    sizes = [(25, 42), (50, 84), (100, 168), (200, 336)]
    builds = {h * w: (lambda side, h=h, w=w: losses.fgd(side, 10, (2, CHANNELS, h, w))) for h, w in sizes}
    return _of_fgd("positions", builds, 100 * 168)


def scale_batch():
    builds = {n: (lambda side, n=n: losses.fgd(side, 10, (n, CHANNELS, 50, 84))) for n in (1, 2, 4, 8)}
    return _of_fgd("images", builds, 2)


def scale_levels():
    sizes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]

    def pyramid(side, number):
        steps = [losses.fgd(side, 10, (2, CHANNELS, *size)) for size in sizes[:number]]
        return lambda: [step() for step in steps]

    positions = {n: sum(h * w for h, w in sizes[:n]) for n in (1, 2, 3, 5)}
    builds = {count: (lambda side, n=n: pyramid(side, n)) for n, count in positions.items()}
    rows = _of_fgd("positions", builds, positions[1])
    for number, row in zip(positions, rows):
        row.name = f"fgd, {number} levels"
    return rows


def scale_terms():
    """Whole steps of the demo's pair under 1, 4 and 16 terms on one and the same map."""
    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import create, scope
    from ppkd.build import build_model
    from ppkd.data.shapes import generate
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.loader import TrainLoader

    numbers, steps = (1, 4, 16), {}
    with tempfile.TemporaryDirectory() as folder:
        generate(os.path.join(folder, "data"), train=8, val=2, seed=0)
        for number in numbers:
            path = os.path.join(folder, f"{number}.yml")
            terms = {f"t{i}": {"student": "neck[0]", "loss": "pkd"} for i in range(number)}
            with open(path, "w", encoding="utf-8") as file:
                json.dump({"_BASE_": [TEACHER], "slim": "Distill", "distill": {"terms": terms}}, file)
            given = [f"dataset_dir={folder}/data", f"teacher.pretrain_weights={WEIGHTS}", "worker_num=0"]
            recipe = load_recipe(STUDENT, path, given)
            with scope(recipe.student):
                loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", recipe.student), 0, 0)
            batch = next(loader.epoch(0)) | {"epoch_id": 0}
            model = build_model(recipe)
            model.train()
            steps[number] = lambda model=model, batch=batch: model(dict(batch))["loss"].backward()
            steps["plain", number] = lambda model=model, batch=batch: model.student(dict(batch))["loss"].backward()
        seconds = interleaved(steps, repeats=7)
    plain = statistics.median(seconds["plain", number] for number in numbers)
    note = f"our time by that of 1 term; the student alone takes {plain:.3f} s"
    return [Row(f"step, {n} terms", seconds[n], None, None, seconds[n] / seconds[1], note=note) for n in numbers]


def scale_processes(steps=24, repeats=3):
    """Seconds that pass in a step of `tools/train.py`, plain and with FGD, on one and on two processes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        from ppkd.data.shapes import generate

        generate(os.path.join(folder, "data"), train=400, val=2, seed=0)
        for run in range(repeats):
            for processes in (1, 2):
                for kind, slim in (("plain", None), ("FGD", SLIM)):
                    seconds = _train(os.path.join(folder, f"{kind}{processes}{run}"), slim, processes, steps, folder)
                    found.setdefault((kind, processes), []).append(seconds)
    seconds = {key: statistics.median(values) for key, values in found.items()}
    rows = []
    for processes in (1, 2):
        ours, plain = seconds["FGD", processes], seconds["plain", processes]
        note = "FGD's step by the plain one's, wall clock; each process has its own batch of 8"
        name = f"step, {processes} process{'es' * (processes > 1)}"
        rows.append(Row(name, ours, None, plain, ours / plain, note=note))
    return rows


def _train(output, slim, processes, steps, folder):
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_dir", f"{output}/log"]
    command = [sys.executable, *(launch if processes > 1 else []), os.path.join(ROOT, "tools", "train.py")]
    command += ["-c", STUDENT, "--max_steps", str(steps)]
    command += ["--slim_config", slim] if slim else []
    command += ["-o", f"dataset_dir={folder}/data", f"save_dir={output}", "log_iter=1", "use_gpu=false"]
    command += [f"teacher.pretrain_weights={WEIGHTS}"] if slim else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    stem = os.path.splitext(os.path.basename(STUDENT))[0]
    with open(os.path.join(output, stem, "metrics.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return statistics.median([r["seconds_per_step"] for r in records if r["kind"] == "train"][4:])


GROUPS = {
    x.__name__: x for x in (scale_boxes, scale_resolution, scale_batch, scale_levels, scale_terms, scale_processes)
}
