"""The same student alone and under several methods, over several seeds: mean, spread and gain as one table.

    python benchmarks/methods/seeds.py -c STUDENT.yml --teacher WEIGHTS --slim CWD=cwd.yml LD=ld.yml --seeds 0 1 2 \
        -o dataset_dir=DATA

Every run is a process of its own with one thread; what has finished is not run again, so an interrupted sweep goes on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from ppkd.terminal.log import duration  # noqa: E402
from ppkd.terminal.table import text_table  # noqa: E402

PLAIN = "plain"


def main():
    args = parse()
    slim = {PLAIN: None} | dict(item.split("=", 1) for item in args.slim)
    runs = [Run(args, name, path, seed) for seed in args.seeds for name, path in slim.items()]
    work(runs, args.jobs)
    rows = {name: [run.result() for run in runs if run.name == name] for name in slim}
    report(rows, args.output)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", "--config", required=True, help="the student's file")
    parser.add_argument("--teacher", required=True, help="the teacher's weights")
    parser.add_argument("--slim", nargs="*", default=[], metavar="NAME=FILE", help="slim files, each with a name")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--output", default="output/methods")
    parser.add_argument("-o", "--opt", nargs="*", default=[], help="overrides for every run")
    return parser.parse_args()


class Run:
    """One training: started at most once, read from its ``metrics.jsonl``."""

    def __init__(self, args, name, slim, seed):
        self.name, self.seed = name, seed
        folder = os.path.abspath(os.path.join(args.output, f"{name}_{seed}"))
        stem = os.path.splitext(os.path.basename(args.config))[0]
        self._log, self._metrics = os.path.join(folder, "log.txt"), os.path.join(folder, stem, "metrics.jsonl")
        self._done = os.path.join(folder, stem, "model_final.pdparams")
        self._command = [sys.executable, "tools/train.py", "-c", args.config, "--eval"]
        self._command += ["--slim_config", slim] if slim else []
        self._command += ["-o", *args.opt, f"seed={seed}", f"save_dir={folder}"]
        self._command += [f"teacher.pretrain_weights={os.path.abspath(args.teacher)}"] if slim else []
        self._process = None

    def start(self):
        os.makedirs(os.path.dirname(self._log), exist_ok=True)
        if os.path.exists(self._metrics):
            os.remove(self._metrics)  # of a run that did not finish
        with open(self._log, "w", encoding="utf-8") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=file, stderr=file, env=environment)

    def finished(self):
        if self._process is None:
            return os.path.exists(self._done)
        code = self._process.poll()
        if code:
            raise SystemExit(f"{self.name}, seed {self.seed}: failed, see {self._log}")
        return code == 0

    def result(self):
        """AP and AP50 of the last evaluation in percent, and seconds per training step."""
        with open(self._metrics, encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        last = [r for r in records if r["kind"] == "eval"][-1]
        steps = [r["seconds_per_step"] for r in records if r["kind"] == "train"]
        return {"AP": 100 * last["AP"], "AP50": 100 * last["AP50"], "step": statistics.median(steps)}


def work(runs, jobs):
    waiting, running, begin = [run for run in runs if not run.finished()], [], time.time()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(waiting.pop(0))
            running[-1].start()
        for run in [run for run in running if run.finished()]:
            running.remove(run)
            done = f"{len(runs) - len(waiting) - len(running)} of {len(runs)} runs"
            spent = duration(time.time() - begin)
            print(f"{spent}  {done}  {run.name} {run.seed}: AP {run.result()['AP']:.1f}", flush=True)
        time.sleep(1)


def report(rows, output):
    base = statistics.mean(r["AP"] for r in rows[PLAIN])
    lines = [["run", "AP", "spread", "gain", "AP50", "AP by seed", "s/step"]]
    for name, results in rows.items():
        aps = [r["AP"] for r in results]
        spread = f"{statistics.stdev(aps):.1f}" if len(aps) > 1 else "-"
        mean = statistics.mean(aps)
        gain = "" if name == PLAIN else f"{mean - base:+.1f}"
        mean50, step = (statistics.mean(r[key] for r in results) for key in ("AP50", "step"))
        each = " ".join(f"{ap:.1f}" for ap in aps)
        lines.append([name, f"{mean:.1f}", spread, gain, f"{mean50:.1f}", each, f"{step:.2f}"])
    print(text_table(lines))
    with open(os.path.join(output, "results.json"), "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
