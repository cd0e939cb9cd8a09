"""Intervals for a difference of AP: resampling images, and seeds as well where there are several.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both differences of AP in -1..1."""

    low: float
    high: float

    @property
    def verdict(self):
        """``better``, ``worse``, or ``not told apart`` if 0 is inside."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def image_draws(images, resamples, seed=0):
    """(resamples, images) how many times each image is drawn, with replacement, into a set of the same size."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def image_interval(group, base, confidence=0.95):
    """The interval of mean(group) - mean(base), the images drawn anew and the trained weights as they are.

    Args:
        group, base: `Sample` of the seeds of each.
        confidence: share of resamples inside.
    """
    return _interval(
        group.observed.mean() - base.observed.mean(),
        group.resampled.mean(axis=0) - base.resampled.mean(axis=0),
        confidence,
    )


def seed_and_image_interval(group, base, confidence=0.95, seed=0):
    """The same with the seeds of each side drawn anew as well; None if a side has one seed only.

    Both sides draw the same images (paired) and their seeds on their own. Drawn from n seeds, means spread less than
    those of new trainings would, by ``sqrt((n - 1) / n)``, and are spread by the inverse.
    """
    if min(len(group.observed), len(base.observed)) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = _drawn(group.resampled, rng) - _drawn(base.resampled, rng)
    return _interval(group.observed.mean() - base.observed.mean(), drawn, confidence)


@dataclass(frozen=True)
class Sample:
    """AP of the n seeds of one method.

    Attributes:
        observed: (n,) on the images as they are.
        resampled: (n, B) on B resampled sets of images, the same sets for every method.
    """

    observed: np.ndarray
    resampled: np.ndarray


def _drawn(resampled, rng):
    """(B,) means over seeds drawn with replacement, one drawing a set of images."""
    count, sets = resampled.shape
    chosen = rng.integers(count, size=(count, sets))
    mean = resampled.mean(axis=0)
    return mean + (np.take_along_axis(resampled, chosen, axis=0).mean(axis=0) - mean) * np.sqrt(count / (count - 1))


def _interval(observed, drawn, confidence):
    # Drawn sets hold images twice, on which AP is a little higher: the interval is centred on what was observed.
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn - drawn.mean() + observed, [tail, 1 - tail])
    return Interval(float(low), float(high))
