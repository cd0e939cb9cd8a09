"""One run of the evidence, or all that are left, in the order of the protocol (`protocol.md`, `arms.yml`).

    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER --list
    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER --set bccd --arm plain --seed 0
    python benchmarks/evidence/run.py --data ../shared/data --work FOLDER       # whatever is left, one after another

A run that was ended, by SIGKILL too, goes on where it was; one that is done is not run again. The same line started
twice keeps two cores busy: a run that another process has is left to it. What a run gave goes into ``results.json``
beside this file, a failure too. The test split is evaluated by ``--test`` alone, once the choice is committed.
"""

import argparse
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, ROOT)

from benchmarks.evidence.training import Run  # noqa: E402
from ppkd.files.yaml_io import read_yaml  # noqa: E402
from ppkd.terminal.table import text_table  # noqa: E402

WAIT = 60  # seconds


def main():
    args = parse()
    plan = read_yaml(args.plan)
    if args.list:
        rows = [[run.set, run.arm, str(run.seed), run.state()] for run in runs_of(plan, args)]
        print(text_table([["set", "arm", "seed", "state"], *rows]))
        return 0
    if not any(True for _ in runs_of(plan, args)):
        raise SystemExit("no such run; --list shows them")
    if args.test:
        for run in runs_of(plan, args):
            run.test()
        return 0
    return trial(plan, args) if args.steps else sweep(plan, args)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder that holds the data sets")
    parser.add_argument("--work", required=True, help="folder for the runs; outlives an interruption")
    parser.add_argument("--plan", default=os.path.join(HERE, "arms.yml"))
    parser.add_argument("--results", default=os.path.join(HERE, "results.json"))
    parser.add_argument("--set", help="one data set of the plan")
    parser.add_argument("--arm", help="one arm of the plan, or 'teacher'")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--list", action="store_true", help="show the runs and how far they are")
    parser.add_argument("--test", action="store_true", help="evaluate finished runs on the test split")
    parser.add_argument("--again", action="store_true", help="also what has failed before; read what is done anew")
    parser.add_argument("--steps", type=int, help="end every run after so many, and keep nothing: to try the arms out")
    return parser.parse_args()


def runs_of(plan, args):
    """The runs asked for in the order in which they are made: stage by stage, a set's teacher before what it teaches.

    A stage that is ``cut`` is made where its set is asked for alone.
    A stage with ``within`` leaves out the arms whose first seed ended more than so many AP below plain's, or not yet.
    """
    keys, told = ("set", "arm", "seed"), set()
    for stage in plan["stages"]:
        if "cut" in stage and args.set != stage["set"]:
            continue
        for seed in stage["seeds"]:
            for arm in stage["arms"]:
                run = Run(plan, stage["set"], arm, seed, args)
                wanted = [run.teacher(), run] if run.taught else [run]
                for each in wanted if "within" not in stage or run.near_plain(stage["within"]) else ():
                    # A teacher comes along with what it teaches.
                    asked = any(all(getattr(args, k) in (None, getattr(one, k)) for k in keys) for one in (each, run))
                    if asked and each.key not in told:
                        told.add(each.key)
                        yield each


def sweep(plan, args):
    """Make what is left; returns the process's exit code, 1 if a run failed."""
    ended = {}
    while True:
        waiting = False
        for run in runs_of(plan, args):
            if run.key in ended or (run.state() in ("done", "failed") and not args.again):
                continue
            if run.taught and run.teacher().state() != "done":
                waiting = waiting or run.teacher().state() != "failed"
                continue
            code = run.train()
            if code is None:
                waiting = True  # another process has it
                continue
            ended[run.key] = code
            break  # what comes next depends on what is there now
        else:
            if not waiting:
                return int(any(ended.values()))
            time.sleep(WAIT)


def trial(plan, args):
    """A few steps of every run by the real command; the teacher is then as it begins."""
    lost = []
    for run in runs_of(plan, args):
        code = run.train(args.steps)
        print(f"{run.set} {run.arm} {run.seed}: {'ok' if code == 0 else run.last_line()}", flush=True)
        lost += [run] if code else []
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
