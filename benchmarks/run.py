"""Speed and memory, ours beside ppdet's own distillation: prints a table and writes it as JSON.

    python benchmarks/run.py [--only NAME ...] [--json FILE]

Every group of rows is a process of its own, with one thread; within a group the sides take turns. `--only` takes names
of groups or their beginnings, such as ``loss`` or ``step_gfl``.
"""

# ruff: noqa: E402
import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.reporting.rows import COLUMNS, Row, table

# Names of the groups, with the module that has each in its GROUPS; nothing of Paddle is imported to list them.
MODULES = {
    "losses.rows": ("loss_fgd", "loss_fgd_boxes", "loss_cwd", "loss_pkd", "loss_mgd", "loss_ld"),
    "engine.steps": (
        "step_ppyoloe_l_to_m", "step_gfl_ld", "step_gfl_cwd", "step_retinanet_fgd", "step_yolov3", "step_idle",
        "step_memory", "teacher_forms",
    ),
    "engine.bank": ("bank_ppyoloe_l_to_m", "bank_demo"),
    "commands.start": ("start",),
    "engine.scaling": (
        "scale_boxes", "scale_resolution", "scale_batch", "scale_levels", "scale_terms", "scale_processes",
    ),
}  # fmt: skip


def main():
    args = parse()
    if args.inside:
        return inside(args.inside)
    rows = []
    for module, names in MODULES.items():
        for name in names:
            if args.only and not any(name.startswith(only) for only in args.only):
                continue
            begin = time.time()
            found = in_a_process(module, name)
            rows += found
            print(f"== {name} ({time.time() - begin:.0f} s)\n{table(found)}\n", flush=True)
            save(rows, args.json)
    print(table(rows))
    missed = [row.name for row in rows if row.met is False]
    print(f"\n{sum(row.met is True for row in rows)} targets met, {len(missed)} missed", *missed, sep="\n  ")
    return 1 if any(row.note.startswith("failed") for row in rows) else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="groups, by name or beginning; default all")
    parser.add_argument("--json", help="write the rows into this file, after every group")
    parser.add_argument("--inside", nargs=3, metavar=("MODULE", "GROUP", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = [name for names in MODULES.values() for name in names]
    unknown = [only for only in args.only or () if not any(name.startswith(only) for name in known)]
    if unknown:
        parser.error(f"no group {unknown[0]}; there are {', '.join(known)}")
    return args


def in_a_process(module, name):
    """The rows of one group, or one that tells why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.json")
        command = [sys.executable, os.path.abspath(__file__), "--inside", module, name, path]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return [Row(name, note="failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1])]
        with open(path, encoding="utf-8") as file:
            return [Row(**row) for row in json.load(file)]


def inside(given):
    module, name, path = given
    import importlib

    import ppkd  # noqa: F401  # before paddle

    rows = importlib.import_module(f"benchmarks.{module}").GROUPS[name]()
    with open(path, "w", encoding="utf-8") as file:
        json.dump([dataclasses.asdict(row) for row in rows], file)
    return 0


def save(rows, path):
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump([{key: getattr(row, key) for key in (*COLUMNS, "note")} for row in rows], file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
