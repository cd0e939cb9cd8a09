"""Makes docs/evidence.md of results.json, and its picture: means, paired intervals, curves, cost, and what is missing.

    python benchmarks/evidence/page.py [--results FILE] [--plan FILE.yml] [--output FILE.md]
"""

import argparse
import json
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, ROOT)

from benchmarks.evidence import results  # noqa: E402
from benchmarks.evidence.compare import (  # noqa: E402
    EQUAL_TIME,
    HELPS,
    HURTS,
    ONE,
    PLAIN,
    TEACHER,
    at,
    by_student,
    is_taught,
    score,
    steps_until,
    to_live_teacher,
    to_plain,
    to_plain_as_long,
)
from benchmarks.evidence.picture import draw  # noqa: E402
from ppkd.files.yaml_io import read_yaml  # noqa: E402

CONVERGED = 1.0  # AP
PARTS = 8  # of a curve
INTRO = """# Does it help, at convergence?

Made by `python benchmarks/evidence/page.py` of `benchmarks/evidence/results.json`. What was run, and what counts as
helping, was written before: `benchmarks/evidence/protocol.md`. AP is COCO's, in percent, of the weights at the end of
training; differences are paired by seed, with 95 % intervals (Student's t). Cost is CPU time beside a plain run's, as
`benchmarks/evidence/cost.py` measured it. An arm's name is its method and `doc`, as documented, `first`, the same for
the first third with a hand-over (`stop`: without one), or `gradient`, a constant share of the detection loss's
gradient. `bank8` has the teacher's answers in a bank of 8 views while it teaches; `views8` is that by a version whose
views lasted to the end of a run; `stop_average` and the like forget that one part in the hand-over.
"""
SHADES = """Of each set with several seeds; lines are means, shades reach from the lowest seed to the highest. These
evaluations are of the validation split, on `cards`, which has none, of the test split; the
tables have the split that they name."""
IN_STEPS, IN_TIME = "to plain, in as many steps", "to plain, in the same time"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", default=os.path.join(HERE, "results.json"))
    parser.add_argument("--cost", default=os.path.join(HERE, "cost.json"))
    parser.add_argument("--plan", default=os.path.join(HERE, "arms.yml"))
    parser.add_argument("--output", default=os.path.join(ROOT, "docs", "evidence.md"))
    args = parser.parse_args()
    cost = {}
    if os.path.exists(args.cost):
        with open(args.cost, encoding="utf-8") as file:
            cost = json.load(file)
    records, plan, picture = results.read(args.results), read_yaml(args.plan), f"{args.output[:-3]}.svg"
    drawn = draw(records, picture)
    text = page(records, plan, cost, os.path.basename(picture) if drawn else None)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(text)


def page(records, plan, cost, picture=None):
    """The page's text.

    Args:
        records: as `run.py` keeps them.
        plan: `arms.yml`, read: what is missing.
        cost: set -> name of an arm -> CPU time of its run over that of a plain one; what is not known is left out.
        picture: name of the file with the curves.
    """
    sections, told = [], []
    for name in dict.fromkeys(record["data"] for record in records):
        for student, arms in by_student([record for record in records if record["data"] == name]).items():
            rows = measured(arms, cost.get(name, {}), plan["sets"].get(name, {}).get("as_long", {}))
            told += [(name, row) for row in rows if is_taught(row["arm"])]
            sections += [f"## {name}, {os.path.splitext(os.path.basename(student))[0]}", ""]
            sections += [*teachers(records, plan, name), *headroom(rows), *table(rows), *curves(arms), *updates(arms)]
            sections += [*failures(arms), ""]
    seen = [f"![AP over the training]({picture})\n\n{SHADES}\n"] if picture else []
    return "\n".join([INTRO, *summary(told), *seen, *sections, *missing(records, plan)]).rstrip() + "\n"


def teachers(records, plan, name):
    """What the teacher reaches; where it was trained more than once, what each has that taught."""
    owner = plan["sets"].get(name, {}).get("teacher_of", name)
    taught, split = {}, ""
    for record in records:
        if record["data"] == name and record.get("teacher_AP") is not None:
            taught.setdefault(record["teacher_AP"], set()).add(record["seed"])
    found = [r for r in records if (r["data"], r["arm"]) == (owner, TEACHER) and "failed" not in r]
    for record in found:
        split = " on the test split" if {"given", "test"} & record.keys() else ""
    if len(taught) > 1:
        each = (f"{100 * ap:.1f} (seeds {', '.join(map(str, sorted(seeds)))})" for ap, seeds in taught.items())
        return [f"The teacher's AP{split}, trained more than once: {', '.join(each)}.\n"]
    return [
        f"The teacher's AP{split}: "
        f"{100 * (record.get('test', record)['AP'] if split else max(ap for _, ap in record['curve'])):.1f}.\n"
        for record in found
    ]


def summary(told):
    """What helps, and plainly what does not."""
    lines = [
        [name, row["arm"], str(len(row["aps"])), *judged(row["steps"]), *judged(row["time"])]
        for name, row in told
        if row["steps"] and row["steps"].verdict != ONE
    ]
    once = [f"{row['arm']} ({name}, {row['steps']})" for name, row in told if row["steps"] and row["steps"].low is None]
    body = markdown(["set", "taught", "seeds", IN_STEPS, "", IN_TIME, ""], lines) if lines else []
    body += [f"\nOf one seed, which says nothing yet: {'; '.join(once)}."] if once else []
    return [
        "## Where it helps, and where it does not", "",
        *(body or ["No arm has been run beside plain yet, so nothing can be said."]), "",
    ]  # fmt: skip


def judged(difference):
    """A difference and the protocol's word for it, as two cells."""
    if difference is None:
        return ["", ""]
    word = difference.verdict
    return [str(difference), f"**{word}**" if word in (HELPS, HURTS) else word]


def missing(records, plan):
    """What the plan's stages have and the records do not."""
    there, lines = {results.key_of(record) for record in records}, []
    for stage in plan["stages"]:
        left = {}
        for arm in stage["arms"]:
            seeds = [str(seed) for seed in stage["seeds"] if (stage["set"], arm, seed) not in there]
            if seeds:
                left.setdefault(" ".join(seeds), []).append(arm)
        why = f"; cut: {stage['cut']}" if "cut" in stage else ""
        lines += [f"- {stage['set']}, seed {seeds}: {', '.join(arms)}{why}" for seeds, arms in left.items()]
    return ["## Not run", "", *lines, ""] if lines else []


def measured(arms, cost, as_long):
    """One row of numbers an arm, those with the highest gain over plain first."""
    rows = []
    for arm, runs in arms.items():
        good = {seed: run for seed, run in runs.items() if "failed" not in run}
        if not good:
            continue
        split = "test" if all("test" in run for run in good.values()) else "val"
        rows.append({
            "arm": arm, "split": split, "aps": [score(run, split) for run in good.values()],
            "steps": to_plain(arms, arm), "time": to_plain_as_long(arms, arm, as_long),
            "live": to_live_teacher(arms, arm), "cost": 1.0 if arm == PLAIN else cost.get(arm),
            "until": [steps_until(good, arms.get(PLAIN, {}), share) for share in (0.9, 1.0)],
        })  # fmt: skip
    return sorted(rows, key=lambda row: -(row["steps"].mean if row["steps"] else 0.0))


def headroom(rows):
    """Whether plain had converged: what a run of about twice its length gains."""
    found = [row["steps"] for row in rows if row["arm"] == EQUAL_TIME and row["steps"]]
    if not found:
        return []
    told = "more than 1 AP: plain had not converged" if found[0].mean > CONVERGED else "plain had converged"
    return [f"Headroom, what `{EQUAL_TIME}` gains over `{PLAIN}`: {found[0]}; {told}.\n"]


def table(rows):
    head = ["arm", "split", "AP by seed", "mean", IN_STEPS, "", IN_TIME, "", "to the live teacher",
            "steps to 90 % of plain's end", "to 100 %", "cost"]  # fmt: skip
    lines = [
        [
            row["arm"], row["split"], " ".join(f"{ap:.1f}" for ap in row["aps"]), f"{statistics.mean(row['aps']):.1f}",
            *judged(row["steps"]), *judged(row["time"]), str(row["live"] or ""), *row["until"],
            "" if row["cost"] is None else f"{row['cost']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown(head, lines)


def markdown(head, lines):
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def curves(arms):
    """AP on the validation split after each part of a run, means over the seeds."""
    head = ["AP after a share of the run", *(f"{part}/{PARTS}" for part in range(1, PARTS + 1))]
    lines = []
    for arm, runs in arms.items():
        good = [run for run in runs.values() if "failed" not in run]
        points = [[at(run, part / PARTS) for run in good] for part in range(1, PARTS + 1)]
        if good:
            lines.append([arm, *(f"{statistics.mean(values):.1f}" for values in points)])
    return ["", *markdown(head, lines)] if lines else []


def updates(arms):
    """How far either loss moves the weights, of each arm's first seed."""
    lines = []
    for arm, runs in arms.items():
        first = next((run["updates"] for run in runs.values() if run.get("updates")), [])
        cells = [f"{step}: {own:.2f}" + ("" if its is None else f" {its:.2f}") for step, own, its in first]
        lines += [[arm, "; ".join(cells)]] if cells else []
    head = ["How far the detection loss and the teacher move the weights", "step: root mean square, in learning rates"]
    return ["", *markdown(head, lines)] if lines else []


def failures(arms):
    lost = [(arm, seed, run["failed"]) for arm, runs in arms.items() for seed, run in runs.items() if "failed" in run]
    return [f"\nFailed: {arm}, seed {seed}: {why}" for arm, seed, why in lost]


if __name__ == "__main__":
    main()
