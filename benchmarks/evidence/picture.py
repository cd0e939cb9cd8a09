"""Draws how AP grows over the training: each set with several seeds of plain and of a taught arm."""

import os
import statistics

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams |= {"svg.hashsalt": "ppkd", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
from matplotlib import pyplot  # noqa: E402

from benchmarks.evidence.compare import PLAIN, by_student  # noqa: E402

# Arm -> how it is named, and Okabe and Ito's colour, told apart by colour-blind readers too.
DRAWN = {
    PLAIN: ("plain", "#000000"),
    "ppyoloe_first": ("a third with the live teacher", "#E69F00"),
    "ppyoloe_first_bank4": ("a third from a bank of 4 views (auto)", "#0072B2"),
}


def draw(records, target):
    """Save the picture; False where no set has two seeds of plain and of a taught arm.

    Args:
        records: as `run.py` keeps them.
        target: path of the file, whose ending says its kind.
    """
    sets = dict.fromkeys(record["data"] for record in records)
    panels = [
        (f"{name}, {os.path.splitext(os.path.basename(student))[0]}", drawn)
        for name in sets
        for student, arms in by_student([record for record in records if record["data"] == name]).items()
        if len(drawn := _several(arms)) > 1 and PLAIN in drawn
    ]
    if not panels:
        return False
    figure, places = pyplot.subplots(1, len(panels), figsize=(3.7 * len(panels), 3.4), layout="constrained")
    for axes, (title, arms) in zip(places if len(panels) > 1 else [places], panels):
        axes.set_title(title, fontsize=9)
        for arm, runs in arms.items():
            _line(axes, runs, *DRAWN[arm])
        axes.set_xlabel("steps")
    (places if len(panels) == 1 else places[0]).set_ylabel("AP [%]")
    known = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=len(known), frameon=False)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _several(arms):
    """The arms that are drawn, of two seeds and more."""
    good = {arm: [run for run in arms.get(arm, {}).values() if "failed" not in run] for arm in DRAWN}
    return {arm: runs for arm, runs in good.items() if len(runs) > 1}


def _line(axes, runs, label, colour):
    length = min(len(run["curve"]) for run in runs)
    steps = [step for step, _ in runs[0]["curve"][:length]]
    values = [[100 * run["curve"][place][1] for run in runs] for place in range(length)]
    axes.plot(steps, [statistics.mean(found) for found in values], color=colour, label=label)
    low, high = ([end(found) for found in values] for end in (min, max))
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
