"""Draws what benchmarks/run.py saved: the losses, the steps and how FGD grows.

    python benchmarks/run.py --json rows.json
    python benchmarks/reporting/plot.py rows.json docs/performance.svg
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams |= {"svg.hashsalt": "ppkd", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
from matplotlib import pyplot  # noqa: E402

# Okabe and Ito's palette: told apart by colour-blind readers too.
OURS, PPDET, IDEAL = "#0072B2", "#E69F00", "#000000"


def main(source, target):
    with open(source, encoding="utf-8") as file:
        rows = {row["name"]: row for row in json.load(file)}
    figure, (losses, steps, growth) = pyplot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    _losses(losses, rows)
    _steps(steps, rows)
    _growth(growth, rows)
    figure.legend(*losses.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(target, metadata={"Date": None})


def _pairs(axes, names, ours, theirs):
    places = range(len(names))
    axes.barh([place - 0.2 for place in places], ours, 0.4, color=OURS, label="ppkd")
    axes.barh([place + 0.2 for place in places], theirs, 0.4, color=PPDET, hatch="//", label="PaddleDetection")
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()


LOSSES = ("loss fgd", "loss cwd", "loss pkd", "loss ld", "loss mgd, a level further")


def _losses(axes, rows):
    names = [name for name in LOSSES if name in rows]
    seconds = [[1e3 * rows[name][side] for name in names] for side in ("ours_s", "ppdet_s")]
    _pairs(axes, [name.split()[1].strip(",").upper() for name in names], *seconds)
    axes.set_xlabel("a loss, forward and backward [ms]")


def _steps(axes, rows):
    found = [row for name, row in rows.items() if name.startswith("step ") and row["ideal_s"] and "process" not in name]
    ours, theirs = ([_beyond(row[side], row["ideal_s"]) for row in found] for side in ("ours_s", "ppdet_s"))
    _pairs(axes, [row["name"].removeprefix("step ") for row in found], ours, theirs)
    axes.axvline(0, color=IDEAL, linewidth=0.8)
    axes.set_xlabel("a step beyond student's step + teacher's forward [%]")


def _beyond(seconds, ideal):
    return 100 * (seconds / ideal - 1) if seconds else 0.0


def _growth(axes, rows):
    prefix = "fgd, positions "
    points = sorted((int(name.removeprefix(prefix)), row) for name, row in rows.items() if name.startswith(prefix))
    for side, colour, style, label in (("ours_s", OURS, "o-", "ppkd"), ("ppdet_s", PPDET, "s--", "PaddleDetection")):
        axes.loglog([x for x, _ in points], [row[side] for _, row in points], style, color=colour, label=label)
    axes.set_xlabel("positions of the map (256 channels, 2 images)")
    axes.set_ylabel("FGD, forward and backward [s]")


if __name__ == "__main__":
    main(*sys.argv[1:])
