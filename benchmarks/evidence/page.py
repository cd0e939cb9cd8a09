"""Makes docs/evidence.md of results.json: means, paired intervals, curves, cost, what is missing and does not help.

    python benchmarks/evidence/page.py [--results FILE] [--plan FILE.yml] [--output FILE.md]
"""

import argparse
import json
import os
import re
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, ROOT)

from benchmarks.evidence import results  # noqa: E402
from ppkd.files.yaml_io import read_yaml  # noqa: E402

PLAIN, EQUAL_TIME, TEACHER = "plain", "equal_time", "teacher"
FIRST, BANKED = "equal_time_first", "equal_time_bank8"
# What is in an arm's name -> plain for as long, or for longer where nothing else was run.
AS_LONG = {"_bank4": [BANKED, FIRST], "_bank8": [BANKED, FIRST], "_first": [FIRST], "": [EQUAL_TIME]}
IN_TIME, OF_BANKS = "Taught, less plain for as long as that takes", "From a bank, less from the live teacher"
LEAST = 0.5  # AP
CONVERGED = 1.0  # AP
PARTS = 8  # of a curve
INTRO = """# Does it help, at convergence?

Made by `python benchmarks/evidence/page.py` of `benchmarks/evidence/results.json`. What was run, and what counts as
helping, was written before: `benchmarks/evidence/protocol.md`. AP is COCO's, in percent, of the weights at the end of
training; differences are paired by seed, with 95 % intervals (Student's t). Cost is CPU time beside a plain run's, as
`benchmarks/evidence/cost.py` measured it. An arm's name is its method and `doc`, as documented, `first`, the same for
the first third with a hand-over, or `gradient`, a constant share of the detection loss's gradient. `bank8` has
the teacher's answers in a bank of 8 views while it teaches; `views8` is that by a version whose views
lasted to the end of a run.
"""


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
    text = page(results.read(args.results), read_yaml(args.plan), cost)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(text)


def page(records, plan, cost):
    """The page's text.

    Args:
        records: as `run.py` keeps them.
        plan: `arms.yml`, read: what is missing.
        cost: set -> name of an arm -> CPU time of its run over that of a plain one; what is not known is left out.
    """
    sections, verdicts, timed = [], [], []
    for name in dict.fromkeys(record["data"] for record in records):
        for student, arms in by_student([record for record in records if record["data"] == name]).items():
            title = f"{name}, {os.path.splitext(os.path.basename(student))[0]}"
            rows = measured(arms, cost.get(name, {}))
            verdicts += [(title, row) for row in rows]
            taught = teachers(records, plan, name)
            same_time = in_the_same_time(arms, plan["sets"].get(name, {}).get("as_long", {}))
            timed += [f"{arm} ({title}, {told})" for arm, told in same_time]
            sections += [f"## {title}", "", *taught, *headroom(rows), *table(rows), *beside(same_time, IN_TIME)]
            sections += [*beside(of_banks(arms), OF_BANKS), *curves(arms), *updates(arms)]
            sections += [*failures(arms), ""]
    return "\n".join([INTRO, *summary(verdicts, timed), *missing(records, plan), *sections]).rstrip() + "\n"


def by_student(records):
    """Student -> arm -> seed -> record, teachers left out."""
    found = {}
    for record in records:
        if record["arm"] != TEACHER:
            found.setdefault(record["student"], {}).setdefault(record["arm"], {})[record["seed"]] = record
    return found


def teachers(records, plan, name):
    owner = plan["sets"].get(name, {}).get("teacher_of", name)
    found = [r for r in records if (r["data"], r["arm"]) == (owner, TEACHER) and "failed" not in r]
    return [
        f"The teacher's AP on the test split: {100 * record.get('test', record)['AP']:.1f}.\n"
        if {"given", "test"} & record.keys() else
        f"The teacher's AP: {100 * max(ap for _, ap in record['curve']):.1f}.\n"
        for record in found
    ]  # fmt: skip


def summary(verdicts, timed):
    """What helps, and plainly what does not."""
    lines = ["## Where it helps, and where it does not", ""]
    for word, told in WORDS.items():
        found = [f"{row['arm']} ({title}, {spread(row)})" for title, row in verdicts if row["verdict"] == word]
        lines += [f"- {told}: {'; '.join(found)}."] if found else []
    lines += [f"- {IN_TIME}: {'; '.join(timed)}."] if timed else []
    return [*lines, "" if len(lines) > 2 else "No arm has been run beside plain yet, so nothing can be said.\n"]


WORDS = {
    "helps": "Better than plain",
    "hurts": "Worse than plain",
    "not told apart": "Not told from plain, so no help that was seen",
    "one seed": "Of one seed, which says nothing yet",
}


def spread(row):
    ends = "" if row["low"] is None else f", {row['low']:+.1f} to {row['high']:+.1f}"
    return f"{row['gain']:+.1f}{ends}"


def missing(records, plan):
    """What the plan's stages have and the records do not."""
    there, lines = {results.key_of(record) for record in records}, []
    for stage in plan["stages"]:
        left = {}
        for arm in stage["arms"]:
            seeds = [str(seed) for seed in stage["seeds"] if (stage["set"], arm, seed) not in there]
            if seeds:
                left.setdefault(" ".join(seeds), []).append(arm)
        lines += [f"- {stage['set']}, seed {seeds}: {', '.join(arms)}" for seeds, arms in left.items()]
    return ["## Not run", "", *lines, ""] if lines else []


def measured(arms, cost):
    """One row of numbers an arm, those with the highest gain over plain first."""
    plain, rows = arms.get(PLAIN, {}), []
    for arm, runs in arms.items():
        good = {seed: run for seed, run in runs.items() if "failed" not in run}
        if not good:
            continue
        split = "test" if all("test" in run for run in good.values()) else "val"
        done = {seed: score(run, split) for seed, run in good.items()}
        alone = {seed: score(run, split) for seed, run in plain.items()}
        pairs = [ap - alone[seed] for seed, ap in done.items() if alone.get(seed) is not None]
        gain, low, high = interval(pairs) if arm != PLAIN else (None, None, None)
        rows.append({
            "arm": arm, "split": split, "aps": list(done.values()), "gain": gain, "low": low, "high": high,
            "verdict": verdict(gain, low, high), "until": [steps_until(good, plain, share) for share in (0.9, 1.0)],
            "cost": 1.0 if arm == PLAIN else cost.get(arm),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -(row["gain"] or 0.0))


def headroom(rows):
    """Whether plain had converged: what a run of about twice its length gains."""
    found = [row for row in rows if row["arm"] == EQUAL_TIME and row["gain"] is not None]
    if not found:
        return []
    told = "more than 1 AP: plain had not converged" if found[0]["gain"] > CONVERGED else "plain had converged"
    return [f"Headroom, what `{EQUAL_TIME}` gains over `{PLAIN}`: {spread(found[0])}; {told}.\n"]


def in_the_same_time(arms, as_long):
    """Taught arm -> how its AP stands to that of plain trained for as long, paired by seed.

    Args:
        arms: arm -> seed -> record.
        as_long: arm -> the control that is as long on this set, where it is another than on most.
    """
    found = {}
    for arm, runs in arms.items():
        controls = next(controls for part, controls in AS_LONG.items() if part in arm)
        controls = [as_long[arm]] if arm in as_long else controls
        longer = next((arms[control] for control in controls if control in arms), {})
        if arm != PLAIN and not arm.startswith((EQUAL_TIME, f"{PLAIN}_")):
            found[arm] = paired(runs, longer)
    return [(arm, told) for arm, told in found.items() if told]


def of_banks(arms):
    """Arm with a bank -> how its AP stands to that of the live teacher, paired by seed."""
    found = {arm: paired(runs, arms.get(re.sub(r"_(bank|views)\d+$", "", arm), {}))
             for arm, runs in arms.items() if re.search(r"_first_(bank|views)\d+$", arm)}  # fmt: skip
    return [(arm, told) for arm, told in found.items() if told]


def paired(runs, others):
    """How the AP of runs stands to that of others, by seed, as a text; "" where no seed has both."""
    both = [seed for seed in runs if all("failed" not in run.get(seed, {"failed": ""}) for run in (runs, others))]
    if not both:
        return ""
    split = "test" if all("test" in run[seed] for seed in both for run in (runs, others)) else "val"
    gain, low, high = interval([score(runs[seed], split) - score(others[seed], split) for seed in both])
    told = spread({"gain": gain, "low": low, "high": high})
    return told if len(both) > 1 else f"{told} of one seed"


def beside(found, what):
    """What `in_the_same_time` or `of_banks` found, as lines."""
    return [f"{what}: {arm} {told}.\n" for arm, told in found]


def table(rows):
    head = ["arm", "split", "AP by seed", "mean", "difference", "95 % interval", "", "steps to 90 % of plain's end",
            "to 100 %", "cost"]  # fmt: skip
    lines = [
        [
            row["arm"], row["split"], " ".join(f"{ap:.1f}" for ap in row["aps"]), f"{statistics.mean(row['aps']):.1f}",
            "" if row["gain"] is None else f"{row['gain']:+.1f}",
            "" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}",
            f"**{row['verdict']}**" if row["verdict"] in ("helps", "hurts") else row["verdict"], *row["until"],
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


def at(run, share):
    """AP of the evaluation that is nearest to a share of a run."""
    goal = share * run["curve"][-1][0]
    return 100 * min(run["curve"], key=lambda point: abs(point[0] - goal))[1]


def score(run, split):
    """AP of a run in percent, or None."""
    if run is None or "failed" in run or (split == "test" and "test" not in run):
        return None
    return 100 * (run["test"]["AP"] if split == "test" else run["AP"])


def interval(differences):
    """Mean and the ends of its 95 % interval by Student's t; without ends for less than two, empty for none."""
    if not differences:
        return None, None, None
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return mean, None, None
    from scipy.stats import t

    half = t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def verdict(mean, low, high):
    """The protocol's word for a difference."""
    if low is None:
        return "one seed" if mean is not None else ""
    if low > 0 and mean >= LEAST:
        return "helps"
    return "hurts" if high < 0 and mean <= -LEAST else "not told apart"


def steps_until(runs, plain, share):
    """Median steps until a share of what plain ends with, from the curves on the validation split; '-' if never."""
    reached = []
    for seed, run in runs.items():
        base = plain.get(seed)
        if base is None or "failed" in base:
            continue
        goal = share * base["curve"][-1][1]
        reached.append(next((step for step, ap in run["curve"] if ap >= goal), float("inf")))
    middle = statistics.median(reached) if reached else float("inf")
    return "-" if middle == float("inf") else f"{middle:.0f}"


def failures(arms):
    lost = [(arm, seed, run["failed"]) for arm, runs in arms.items() for seed, run in runs.items() if "failed" in run]
    return [f"\nFailed: {arm}, seed {seed}: {why}" for arm, seed, why in lost]


if __name__ == "__main__":
    main()
