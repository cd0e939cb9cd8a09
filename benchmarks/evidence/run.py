"""One run of the evidence, or all that are left, in the order of the protocol (`protocol.md`, `arms.yml`).

    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER --list
    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER --set bccd --arm plain --seed 0
    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER       # whatever is left, one after another

A run that was ended goes on where it was; one that is done is not run again. What it gave goes into ``results.json``
beside this file, a failure too. The test split is evaluated by ``--test`` alone, once the choice is committed.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, ROOT)

from ppkd.bridge.host import versions  # noqa: E402
from ppkd.files.yaml_io import read_yaml  # noqa: E402
from ppkd.terminal.table import text_table  # noqa: E402

RESULTS = os.path.join(HERE, "results.json")
TEACHER = "teacher"


def main():
    args = parse()
    plan = read_yaml(os.path.join(HERE, "arms.yml"))
    keys = ("set", "arm", "seed")
    runs = [run for run in runs_of(plan, args) if all(getattr(args, key) in (None, getattr(run, key)) for key in keys)]
    if not runs:
        raise SystemExit("no such run; --list shows them")
    if args.list:
        print(text_table([["set", "arm", "seed", "state"], *[[r.set, r.arm, str(r.seed), r.state()] for r in runs]]))
        return 0
    for run in runs:
        if args.test:
            run.test(args.results)
        elif run.state() != "done" or args.again:
            run.train()
            run.keep(args.results)
    return 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder that holds the data sets")
    parser.add_argument("--work", required=True, help="folder for the runs; outlives an interruption")
    parser.add_argument("--results", default=RESULTS)
    parser.add_argument("--set", help="one data set of arms.yml")
    parser.add_argument("--arm", help="one arm of arms.yml, or 'teacher'")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--list", action="store_true", help="show the runs and how far they are")
    parser.add_argument("--test", action="store_true", help="evaluate finished runs on the test split")
    parser.add_argument("--again", action="store_true", help="read a finished run's results anew")
    parser.add_argument("-o", "--opt", nargs="*", default=[], help="overrides for every run, to try it out")
    return parser.parse_args()


def runs_of(plan, args):
    """All runs in the order in which they are made: teachers first, then stage by stage."""
    for name in plan["sets"]:
        yield Run(plan, name, TEACHER, 0, args)
    for stage in plan["stages"]:
        for seed in stage["seeds"]:
            for arm in stage["arms"]:
                yield Run(plan, stage["set"], arm, seed, args)


class Run:
    """One training: a process of its own, with one thread.

    Attributes:
        set, arm, seed: which it is.
    """

    def __init__(self, plan, name, arm, seed, args):
        self.set, self.arm, self.seed = name, arm, seed
        self._plan, self._args, self._data = plan, args, plan["sets"][name]
        self._arm = {"epochs": self._data["teacher_epochs"]} if arm == TEACHER else plan["arms"][arm]
        self.student = self._plan["teacher"] if arm == TEACHER else self._arm.get("student", plan["student"])
        self.folder = os.path.join(os.path.abspath(args.work), name, arm, str(seed))
        self.output = os.path.join(self.folder, os.path.splitext(os.path.basename(self.student))[0])

    def state(self):
        if os.path.exists(os.path.join(self.output, "model_final.pdparams")):
            return "done"
        return f"epoch {len(self._records('eval')) * self._every()}" if os.path.exists(self.output) else "-"

    @property
    def epochs(self):
        return self._arm["epochs"] if self.arm == TEACHER else round(self._data["epochs"] * self._arm.get("times", 1))

    def _every(self):
        return max(self.epochs // 8, 1)

    def command(self):
        """The ordinary command that this run is."""
        schedule = [{"name": "CosineDecay", "max_epochs": self.epochs + 1},
                    {"name": "LinearWarmup", "start_factor": 0.0, "epochs": 2}]  # fmt: skip
        options = [
            f"dataset_dir={os.path.join(os.path.abspath(self._args.data), self._data['folder'])}",
            "train_images=images", "val_images=images", f"train_annotations={self._data['train']}",
            f"val_annotations={self._data['val']}", f"epoch={self.epochs}", f"snapshot_epoch={self._every()}", "keep=1",
            f"seed={self.seed}", f"save_dir={self.folder}", f"LearningRate.schedulers={json.dumps(schedule)}",
            *self._arm.get("options", []), *self._args.opt,
        ]  # fmt: skip
        command = [sys.executable, os.path.join(ROOT, "tools", "train.py"), "-c", os.path.join(ROOT, self.student)]
        if slim := self._arm.get("slim"):
            command += ["--slim_config", os.path.join(ROOT, slim)]
            options.append(f"teacher.pretrain_weights={self.teacher().output}/best_model.pdparams")
        return [*command, "--eval", "-r", "auto", "-o", *options]

    def teacher(self):
        return Run(self._plan, self.set, TEACHER, 0, self._args)

    def train(self):
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "log.txt"), "a", encoding="utf-8") as log:
            code = subprocess.call(
                self.command(), cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        if code < 0 or code > 128:
            raise SystemExit(f"{self.set} {self.arm} {self.seed}: ended by a signal; the same command goes on")
        self._failed = None if code == 0 else f"exit {code}: " + self._last_line()

    def _last_line(self):
        with open(os.path.join(self.folder, "log.txt"), encoding="utf-8") as log:
            return (log.read().strip().splitlines() or ["no message"])[-1][:300]

    def _records(self, kind):
        path = os.path.join(self.output, "metrics.jsonl")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [record for record in map(json.loads, file) if record["kind"] == kind]

    def keep(self, path):
        """Put what the run gave into the results, in place of what an earlier try gave."""
        found = {"data": self.set, "student": self.student, "arm": self.arm, "seed": self.seed}
        if failed := getattr(self, "_failed", None):
            found["failed"] = failed
        else:
            evals, steps = self._records("eval"), self._records("train")
            last, seconds = evals[-1], statistics.median(record["seconds_per_step"] for record in steps)
            with open(os.path.join(self.output, "recipe.yml"), "rb") as recipe:
                found["recipe"] = hashlib.sha256(recipe.read()).hexdigest()[:16]
            found |= {
                **{key: round(value, 6) for key, value in last.items() if key.startswith("AP")},
                "curve": [[record["step"], round(record["AP"], 4)] for record in evals],
                "steps": last["step"], "seconds_per_step": round(seconds, 3), "versions": versions(),
            }  # fmt: skip
            if self.arm != TEACHER and self._arm.get("slim"):
                found["teacher_AP"] = max(record["AP"] for record in self.teacher()._records("eval"))
        write(path, found)

    def test(self, path):
        """Evaluate the final weights on the test split, once."""
        found = next((r for r in read(path) if key_of(r) == (self.set, self.arm, self.seed)), None)
        if found is None or "failed" in found or "test" in found:
            return
        out = os.path.join(self.folder, "test.json")
        weights = "best_model" if self.arm == TEACHER else "model_final"
        subprocess.check_call([
            sys.executable, os.path.join(ROOT, "tools", "eval.py"), "-c", os.path.join(ROOT, self.student),
            "--json", out, "-o", f"dataset_dir={os.path.join(os.path.abspath(self._args.data), self._data['folder'])}",
            "train_images=images", "val_images=images", f"train_annotations={self._data['train']}",
            f"val_annotations={self._data['test']}", f"weights={self.output}/{weights}.pdparams",
        ], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        with open(out, encoding="utf-8") as file:
            write(path, {**found, "test": {k: round(v, 6) for k, v in json.load(file).items() if k.startswith("AP")}})


def key_of(record):
    return record["data"], record["arm"], record["seed"]


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write(path, record):
    """Add a record, or replace the one of the same run; the list keeps the order of sets, arms and seeds."""
    records = [other for other in read(path) if key_of(other) != key_of(record)] + [record]
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(sorted(records, key=key_of), file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main())
