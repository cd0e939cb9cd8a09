"""Several methods and seeds on the same student: mean, spread, and what of the difference is more than chance."""

import os
import statistics
import time
from dataclasses import dataclass, field

import numpy as np

from ppkd.errors import UserError, nearest
from ppkd.study.bootstrap import Sample, image_draws, image_interval, seed_and_image_interval
from ppkd.study.coco_matches import Matches, read_coco
from ppkd.study.detections import config_for, detect
from ppkd.terminal.log import duration, logger
from ppkd.terminal.table import text_table

PLAIN = "plain"
_HEADING = ("method", "seeds", "AP", "spread", "AP by seed", "AP50", "gain")


@dataclass
class Group:
    """Runs that differ by their seeds alone.

    Attributes:
        name: ``plain``, or the slim file's stem, with what tells it from another group of the same.
        runs: list of `runs.Run`.
        stats: of each run, what `Matches.stats` gives.
        sample: `bootstrap.Sample`, once it is measured.
    """

    name: str
    runs: list
    stats: list = field(default_factory=list)
    sample: Sample | None = None


def grouped(runs):
    """The groups of runs, in the order of their first ones.

    Raises:
        UserError: two runs of one recipe with the same seed, which are no two samples.
    """
    kinds = []
    for run in runs:
        identity = run.identity()
        found = next((kind for kind in kinds if kind[0] == identity), None)
        if found is None:
            kinds.append((identity, [run]))
            continue
        for other in found[1]:
            if other.seed == run.seed:
                raise UserError(
                    f"{run.folder} and {other.folder} are of the same recipe and seed ({run.seed}): give one of them"
                )
        found[1].append(run)
    names = [_stem(members[0]) for _, members in kinds]
    return [
        Group(name if names.count(name) == 1 else f"{name} ({_told_apart(i, names, kinds)})", members)
        for i, (name, (_, members)) in enumerate(zip(names, kinds))
    ]


def _stem(run):
    if not run.distilled:
        return PLAIN
    return os.path.splitext(os.path.basename(run.recipe.method.file))[0] or run.recipe.method.name


def _told_apart(index, names, kinds):
    """The keys by which a group differs from the others of its name, with its own values."""
    own = kinds[index][0]
    others = [kinds[i][0] for i, name in enumerate(names) if name == names[index] and i != index]
    keys = sorted({key for other in others for key in own.keys() | other.keys() if own.get(key) != other.get(key)})
    shown = {key: key.removeprefix("distill.") for key in keys[:2]}
    return ", ".join(f"{name}={own[key]}" if key in own else f"no {name}" for key, name in shown.items())


def compare(runs, against=None, images=None, resamples=2000, confidence=0.95):
    """Measure the runs and compare each group with one of them.

    Args:
        runs: list of `runs.Run`.
        against: name of the group to compare with; None for the plain one.
        images: use the first so many images of the validation set only.
        resamples: number of resampled sets of images.
        confidence: of the intervals.

    Returns:
        A dict of plain values, as ``--json`` writes it; AP as fractions.

    Raises:
        UserError: no group of that name, runs with other validation sets, a single group; as `detections.detect`.
    """
    groups = grouped(runs)
    base = _base(groups, against)
    begin, coco, draws, count = time.time(), None, None, 0
    for group in groups:
        aps, drawn = [], []
        for run in group.runs:
            found = detect(config_for(run), run.weights, run.folder, run.label, images)
            if coco is None:
                coco, same, kind = read_coco(found.annotations), _content(found), found.kind
                draws = image_draws(len(found.images), resamples)
            elif _content(found) != same:
                raise UserError(f"{run.folder}: its validation set is another than that of {groups[0].runs[0].folder}")
            matches = Matches(coco, found.results, found.images, kind)
            group.stats.append(matches.stats())
            aps.append(group.stats[-1]["AP"])
            drawn.append(matches.resampled(draws))
            count += 1
            left = (time.time() - begin) / count * (len(runs) - count)
            done = f"{count} of {len(runs)} runs, {duration(left)} left"
            logger().info("%s: AP %.1f (%s)", run.label, 100 * aps[-1], done)
        group.sample = Sample(np.array(aps), np.stack(drawn))
    settings = {"images": len(found.images), "annotations": found.annotations, "weights": runs[0].which}
    settings |= {"against": base.name, "resamples": resamples, "confidence": confidence}
    return settings | {"groups": [_row(group, base, confidence) for group in groups]}


def _base(groups, against):
    names = [group.name for group in groups]
    if against is None:
        plain = [group for group in groups if not group.runs[0].distilled]
        if len(plain) != 1:
            what = "no run without a teacher" if not plain else f"{len(plain)} groups without a teacher"
            raise UserError(f"{what}: say what to compare with: --against NAME, one of {', '.join(names)}")
        return plain[0]
    if against not in names:
        raise UserError(f"--against {against}: no such group{nearest(against, names)}; there are {', '.join(names)}")
    return groups[names.index(against)]


def _content(found):
    """What has to be equal for two runs to have been measured on the same objects."""
    with open(found.annotations, "rb") as file:
        return file.read(), found.images, found.kind


def _row(group, base, confidence):
    aps = [stats["AP"] for stats in group.stats]
    row = {
        "name": group.name,
        "runs": [{"folder": run.folder, "seed": run.seed, **stats} for run, stats in zip(group.runs, group.stats)],
        "mean": {key: statistics.mean(stats[key] for stats in group.stats) for key in group.stats[0]},
        "spread": statistics.stdev(aps) if len(aps) > 1 else None,
    }
    if group is base:
        return row
    of_images = image_interval(group.sample, base.sample, confidence)
    of_both = seed_and_image_interval(group.sample, base.sample, confidence)
    return row | {
        "gain": row["mean"]["AP"] - float(base.sample.observed.mean()),
        "interval_images": [of_images.low, of_images.high],
        "interval_seeds_and_images": [of_both.low, of_both.high] if of_both else None,
        "verdict": (of_both or of_images).verdict,
    }


def comparison_table(found):
    """The comparison as text: percent, one row a group, and below it what the intervals are of.

    Args:
        found: what `compare` returned.
    """
    lines = [[*_HEADING, f"{100 * found['confidence']:g} %: images", "seeds and images", ""]]
    for row in found["groups"]:
        each = " ".join(f"{100 * run['AP']:.1f}" for run in row["runs"])
        mean = row["mean"]
        spread = "-" if row["spread"] is None else f"{100 * row['spread']:.1f}"
        ap, ap50 = (f"{100 * mean[key]:.1f}" for key in ("AP", "AP50"))
        cells = [row["name"], str(len(row["runs"])), ap, spread, each, ap50]
        if "gain" in row:
            both = row["interval_seeds_and_images"]
            cells += [f"{100 * row['gain']:+.1f}", _shown(row["interval_images"]), _shown(both) if both else "-"]
            cells += [row["verdict"] + ("" if both else " (one seed)")]
        else:
            cells += ["", "", "", "compared with"]
        lines.append(cells)
    return text_table(lines) + "\n\n" + "\n".join(notes(found))


def _shown(interval):
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def notes(found):
    """What the intervals cover and what they do not, in lines."""
    lines = [
        f"{found['images']} images, {found['weights']}.pdparams, {found['resamples']} resamples; both sides of a "
        "difference get the same images.",
        "images: these trained weights on other images like these. seeds and images: trained again as well.",
    ]
    if any(row.get("interval_seeds_and_images") is None for row in found["groups"] if "gain" in row):
        lines.append("With one seed on a side, another training is not covered: train more seeds.")
    return lines
