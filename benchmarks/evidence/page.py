"""Makes docs/evidence.md of results.json: means, paired intervals, curves, cost, and where it does not help.

    python benchmarks/evidence/page.py [--results FILE] [--output FILE.md]
"""

import argparse
import json
import os
import statistics

HERE = os.path.dirname(os.path.abspath(__file__))
DOCS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs")
PLAIN, EQUAL_TIME, TEACHER = "plain", "equal_time", "teacher"
LEAST = 0.5  # AP


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", default=os.path.join(HERE, "results.json"))
    parser.add_argument("--output", default=os.path.join(DOCS, "evidence.md"))
    args = parser.parse_args()
    with open(args.results, encoding="utf-8") as file:
        records = json.load(file)
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(page(records))


def page(records):
    """The page's text.

    Args:
        records: as `run.py` keeps them.
    """
    lines = [
        "# Does it help, at convergence?", "",
        "Made by `python benchmarks/evidence/page.py` of `benchmarks/evidence/results.json`. What was run, and what",
        "counts as helping, was written before: `benchmarks/evidence/protocol.md`. AP is COCO's, in percent, of the",
        "weights at the end of training; differences are paired by seed, with 95 % intervals (Student's t).", "",
    ]  # fmt: skip
    for name in dict.fromkeys(record["data"] for record in records):
        lines += section(name, [record for record in records if record["data"] == name])
    return "\n".join(lines)


def section(name, records):
    """One data set, by student."""
    lines = []
    for student in dict.fromkeys(r["student"] for r in records if r["arm"] != TEACHER):
        title = os.path.splitext(os.path.basename(student))[0]
        arms = {}
        for record in records:
            if record["student"] == student and record["arm"] != TEACHER:
                arms.setdefault(record["arm"], {})[record["seed"]] = record
        lines += [f"## {name}, {title}", "", *teachers(records), *table(arms), *failures(arms), ""]
    return lines


def teachers(records):
    found = [record for record in records if record["arm"] == TEACHER and "failed" not in record]
    return [f"The teacher's AP: {100 * max(ap for _, ap in record['curve']):.1f}.\n" for record in found]


def table(arms):
    """The arms in the order of their gain over plain, as rows of Markdown."""
    plain = arms.get(PLAIN, {})
    rows = []
    for arm, runs in arms.items():
        split = "test" if all("test" in run for run in runs.values() if "failed" not in run) else "val"
        done = {seed: score(run, split) for seed, run in runs.items() if "failed" not in run}
        if not done:
            continue
        alone = {seed: score(run, split) for seed, run in plain.items()}
        pairs = [ap - alone[seed] for seed, ap in done.items() if alone.get(seed) is not None]
        mean, low, high = interval(pairs) if arm != PLAIN else (0.0, None, None)
        rows.append((mean, [
            arm, split, " ".join(f"{ap:.1f}" for ap in done.values()), f"{statistics.mean(done.values()):.1f}",
            "" if arm == PLAIN or mean is None else f"{mean:+.1f}", "" if low is None else f"{low:+.1f} to {high:+.1f}",
            verdict(mean, low, high) if arm != PLAIN else "",
            *(steps_until(runs, plain, share) for share in (0.9, 1.0)),
            f"{statistics.median(run['seconds_per_step'] for run in runs.values() if 'failed' not in run):.2f}",
        ]))  # fmt: skip
    head = ["arm", "split", "AP by seed", "mean", "difference", "95 % interval", "",
            "steps to 90 % of plain's end", "to 100 %", "s/step"]  # fmt: skip
    rows.sort(key=lambda row: -(row[0] if row[0] is not None else -100.0))
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *(cells for _, cells in rows))]


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
        return "**helps**"
    return "**hurts**" if high < 0 and mean <= -LEAST else "not told apart"


def steps_until(runs, plain, share):
    """Median steps until a share of what plain ends with, from the curves on the validation split; '-' if never."""
    reached = []
    for seed, run in runs.items():
        base = plain.get(seed)
        if base is None or "failed" in base or "failed" in run:
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
