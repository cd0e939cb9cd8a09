"""Compares the runs of `results.json`: paired differences, their intervals, and what the protocol calls them."""

import re
import statistics
from dataclasses import dataclass

from scipy.stats import t

PLAIN, EQUAL_TIME, TEACHER = "plain", "equal_time", "teacher"
FIRST, BANKED = "equal_time_first", "equal_time_bank8"
# What is in an arm's name -> plain for as long, or for longer where nothing else was run.
AS_LONG = {"_bank4": [BANKED, FIRST], "_bank8": [BANKED, FIRST], "_first": [FIRST], "": [EQUAL_TIME]}
LEAST = 0.5  # AP
HELPS, HURTS, NOT_TOLD, ONE = "helps", "hurts", "not told", "one seed"


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences in AP, and the ends of its 95 % interval by Student's t: None for one pair."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values):
        """The difference that values come to, or None where there are none."""
        if not values:
            return None
        mean = statistics.mean(values)
        if len(values) < 2:
            return cls(mean, None, None)
        half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
        return cls(mean, mean - half, mean + half)

    @property
    def verdict(self):
        """The protocol's word for it."""
        if self.low is None:
            return ONE
        if self.low > 0 and self.mean >= LEAST:
            return HELPS
        return HURTS if self.high < 0 and self.mean <= -LEAST else NOT_TOLD

    def __str__(self):
        return f"{self.mean:+.1f}" + ("" if self.low is None else f", {self.low:+.1f} to {self.high:+.1f}")


def by_student(records):
    """Student -> arm -> seed -> record, teachers left out."""
    found = {}
    for record in records:
        if record["arm"] != TEACHER:
            found.setdefault(record["student"], {}).setdefault(record["arm"], {})[record["seed"]] = record
    return found


def is_taught(arm):
    """Whether an arm's name is that of a taught one, which has a plain one beside it that is as long."""
    return arm not in (PLAIN, "ceiling") and not arm.startswith((EQUAL_TIME, f"{PLAIN}_"))


def to_plain(arms, arm):
    """`Difference` of an arm to plain in as many steps, or None."""
    return None if arm == PLAIN else paired(arms[arm], arms.get(PLAIN, {}))


def to_plain_as_long(arms, arm, as_long):
    """`Difference` of a taught arm to plain that is trained for as long, or None.

    Args:
        arms: arm -> seed -> record.
        arm: one of them.
        as_long: arm -> the control that is as long on this set, where it is another than on most.
    """
    if not is_taught(arm):
        return None
    controls = [as_long[arm]] if arm in as_long else next(found for part, found in AS_LONG.items() if part in arm)
    return paired(arms[arm], next((arms[control] for control in controls if control in arms), {}))


def to_live_teacher(arms, arm):
    """`Difference` of an arm with a bank to that of the live teacher, or None."""
    live = re.sub(r"_(bank|views)\d+$", "", arm)
    return None if live == arm or not is_taught(arm) else paired(arms[arm], arms.get(live, {}))


def paired(runs, others):
    """`Difference` of runs to others of the same seeds, on the test split where both have it; None without a pair."""
    both = [seed for seed in runs if all("failed" not in run.get(seed, {"failed": ""}) for run in (runs, others))]
    split = "test" if all("test" in run[seed] for seed in both for run in (runs, others)) else "val"
    return Difference.of([score(runs[seed], split) - score(others[seed], split) for seed in both])


def score(run, split):
    """AP of a run in percent."""
    return 100 * (run["test"]["AP"] if split == "test" else run["AP"])


def at(run, share):
    """AP of the evaluation that is nearest to a share of a run, in percent."""
    goal = share * run["curve"][-1][0]
    return 100 * min(run["curve"], key=lambda point: abs(point[0] - goal))[1]


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
