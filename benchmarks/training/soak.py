"""Trains the demo's pair for a given time with faults thrown in at random, and checks what is left in the end.

    python benchmarks/training/soak.py --minutes 60 --output soak

The run meets bad images (left out), losses that are NaN (skipped), SIGKILL at any moment, also while a checkpoint is
written, and a disk that is full while one is. A child trains, and is started anew with ``--resume auto`` after every
fault that ends it. The same run, bad images and NaN included, is then trained in one go for as many steps, and the
weights of both have to be equal to the bit. Memory and open files of a child are read in every step; what counts as
growth is a child's last quarter against its second. Exits 1 if a check fails. docs/reliability.md has the figures.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

STUDENT = "configs/demo/ppyoloe_plus_student_shapes.yml"
SLIM = "configs/slim/distill/ppyoloe_plus_shapes_fgd.yml"
TEACHER = "ppkd/data/teacher_shapes.pdparams"
IMAGES, BATCH, SAVE_EVERY = 96, 4, 5
# Of every hundred batches, so many are NaN.
NAN_SHARE = 0.05
SCHEDULE = "[{name: PiecewiseDecay, milestones: [100000], gamma: 0.1}, {name: LinearWarmup, steps: 20}]"
# 96 pixels in place of 192: more steps a minute, and with them more faults.
SMALL = (
    "[{BatchRandomResize: {target_size: 96, random_size: false, random_interp: false, keep_ratio: false}}, "
    "{NormalizeImage: {mean: [0.0, 0.0, 0.0], std: [1.0, 1.0, 1.0], norm_type: none}}, {Permute: {}}, {PadGT: {}}]"
)
BROKEN = (b"", b"no picture", None, "half")
# A growth that is allowed: allocators and caches fill up for a while.
MEMORY_MB, FILES = 40, 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="time of the run with faults")
    parser.add_argument("--output", default="soak", help="folder for data, runs and the results; has to be new")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "STEPS", "WRITE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if args.child:
        folder, steps, write = args.child
        return child(pathlib.Path(folder), int(steps), int(write))
    return soak(pathlib.Path(args.output).resolve(), args.minutes * 60, random.Random(args.seed))


def soak(output, seconds, draw):
    """Run it all in a new folder; the exit code."""
    output.mkdir(parents=True)
    broken = make_data(output / "data", draw)
    print(f"{IMAGES} training images, {broken} of them broken; {seconds / 60:g} minutes with faults", flush=True)
    begin, ends, faulty = time.time(), collections.Counter(), output / "faulty"
    while (left := seconds - (time.time() - begin)) > 0:
        fault, after = draw.choice(["kill", "kill in a write", "full disk", "kill"]), draw.uniform(15, 60)
        ends[start(faulty, fault, min(after, left), draw)] += 1
    last = steps_of(faulty)
    ends[start(faulty, "none", None, draw, last)] += 1
    print(f"{last} steps; now the same without kills", flush=True)
    start(output / "whole", "none", None, draw, last)
    return report(output, ends, last, broken, time.time() - begin)


def make_data(folder, draw):
    """The demo's images, a few of them broken; how many."""
    from ppkd.data.shapes import generate

    generate(str(folder), train=IMAGES, val=4, size=224, seed=0)
    chosen = draw.sample(sorted((folder / "train").iterdir()), len(BROKEN))
    for path, content in zip(chosen, BROKEN):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    return len(chosen)


def start(folder, fault, after, draw, steps=10**6):
    """Train in a child until a fault ends it; how it ended.

    Args:
        fault: ``kill``, ``kill in a write`` (both SIGKILL), ``full disk`` (the n-th write of a checkpoint fails) or
            ``none``.
        after: seconds until then.
        steps: where the run is to end.
    """
    write = draw.randint(2, 6) if fault == "full disk" else 0
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "ab") as log:
        command = [sys.executable, __file__, "--child", str(folder), str(steps), str(write)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    if fault.startswith("kill"):
        limit = time.time() + after
        while time.time() < limit and process.poll() is None:
            time.sleep(0.05)
        while fault == "kill in a write" and process.poll() is None and not list(folder.glob("*/.*.ppkd-*")):
            time.sleep(0.0005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    code = process.wait()
    expected = {"full disk": 1, "none": 0}.get(fault, -signal.SIGKILL)
    if code != expected:
        tail = (folder / "log.txt").read_text(errors="replace")[-3000:]
        raise SystemExit(f"after the fault {fault!r} the run ended with {code}, not {expected}:\n{tail}")
    return {"none": "end of the run"}.get(fault, fault)


def child(folder, steps, full_at):
    """Train, from the last checkpoint on."""
    import ppkd  # noqa: F401  # before paddle
    from ppkd.errors import UserError
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.trainer import Trainer

    given = [
        f"dataset_dir={folder.parent / 'data'}", f"save_dir={folder}", f"teacher.pretrain_weights={TEACHER}",
        f"TrainReader.batch_size={BATCH}", "epoch=100000", f"snapshot_steps={SAVE_EVERY}", "snapshot_epoch=100000",
        "log_iter=10", "max_bad_images=10%", "on_nonfinite=skip", "worker_num=0",
        "pretrain_weights=null", "LearningRate.base_lr=0.0005", f"LearningRate.schedulers={SCHEDULE}",
        f"TrainReader.batch_transforms={SMALL}",
    ]  # fmt: skip
    if full_at:
        fill_disk(full_at)
    options = {"resume": "auto", "max_steps": steps}
    recipe = load_recipe(STUDENT, SLIM, given)
    with open(folder / "usage.jsonl", "a", encoding="utf-8") as watched, Trainer.open(recipe, **options) as trainer:
        train = trainer._train_batch

        def faulty(batch):
            # By its place alone, so that a batch is the same however often the run was ended.
            if "image" in batch and random.Random(trainer.step).random() < NAN_SHARE:
                batch["image"] = batch["image"] * float("nan")
            losses = train(batch)
            row = {"pid": os.getpid(), "step": trainer.step, "mb": held(), "files": len(os.listdir("/proc/self/fd"))}
            watched.write(json.dumps(row) + "\n")
            watched.flush()
            return losses

        trainer._train_batch = faulty
        try:
            trainer.run()
        except UserError as error:
            print(f"ppkd: error: {error}", flush=True)
            return 1
        state = trainer.state()
    write_digest(folder, state)
    return 0


def fill_disk(number):
    """From the n-th file that is written on, there is no room for more than half of it."""
    from ppkd.training import checkpoint

    write, count = checkpoint.write, iter(range(1, 10**9))

    def limited(path, content):
        if next(count) >= number:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the system's answer is then an error, as of a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        write(path, content)

    checkpoint.write = limited


def write_digest(folder, state):
    """What the run ended with, in a form that two runs are compared by."""
    import hashlib

    from tests.helpers_training import flat

    found = {}
    for part in ("student", "terms", "optimizer", "ema", "numerics", "bad_images"):
        content = repr(sorted(flat({part: state[part]}).items())).encode()
        found[part] = hashlib.sha256(content).hexdigest()
    counts = {"step": state["step"], **state["numerics"], "bad": len(state["bad_images"])}
    (folder / "end.json").write_text(json.dumps({"digest": found, **counts}))


def held():
    """Memory of this process in MB, as the system counts it."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def usage(folder):
    """Rows of `child` by process."""
    found = collections.defaultdict(list)
    for line in (folder / "usage.jsonl").read_text().splitlines():
        if line.endswith("}"):
            row = json.loads(line)
            found[row["pid"]].append(row)
    return found


def steps_of(folder):
    """Steps to compare after: one more than were done, so that both runs end with a step and its final snapshot."""
    return max(row["step"] for rows in usage(folder).values() for row in rows) + 2


def growth(rows, key):
    """Median of the last quarter less that of the second: the first is of caches that fill up."""
    quarter = len(rows) // 4
    second, fourth = (statistics.median(r[key] for r in rows[q * quarter : (q + 1) * quarter]) for q in (1, 3))
    return fourth - second


def report(output, ends, last, broken, seconds):
    from ppkd.terminal.table import text_table

    one, other = (json.loads((output / name / "end.json").read_text()) for name in ("faulty", "whole"))
    by_child, whole = usage(output / "faulty"), next(iter(usage(output / "whole").values()))
    long = [rows for rows in by_child.values() if len(rows) >= 40] + [whole]
    memory, files = ([growth(rows, key) for rows in long] for key in ("mb", "files"))
    trained = sum(map(len, by_child.values()))
    left = [path.name for path in (output / "faulty").glob("*/.*.ppkd-*")]
    checks = {
        "weights, averages, optimizer, counters equal to the bit": one == other,
        f"memory grew by less than {MEMORY_MB} MB in every child": max(memory) < MEMORY_MB,
        "open files did not grow": max(files) <= FILES,
        "every bad image was found": one["bad"] == broken,
        "steps were skipped for NaN": one["skipped"] > 0,
        "no half-written file is left": not left,
    }
    rows = [("", ""), ("time (minutes)", f"{seconds / 60:.1f}"), ("steps of the run", str(last))]
    rows += [("steps trained, with those repeated after faults", str(trained)), ("processes", str(len(by_child)))]
    rows += [(f"ended by: {how}", str(number)) for how, number in sorted(ends.items())]
    rows += [("steps skipped for NaN", str(one["skipped"])), ("bad images", f"{one['bad']} of {IMAGES}")]
    rows += [("steps of the longest process", str(max(map(len, long))))]
    rows += [("memory of the longest, second to last quarter (MB)", f"{growth(max(long, key=len), 'mb'):+.1f}")]
    rows += [("most growth of memory in a process (MB)", f"{max(memory):+.1f}")]
    rows += [("most growth of open files in a process", f"{max(files):+.0f}")]
    rows += [(name, "yes" if held_ else "NO") for name, held_ in checks.items()]
    text = text_table(rows)
    print(text)
    (output / "results.txt").write_text(text + "\n")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
