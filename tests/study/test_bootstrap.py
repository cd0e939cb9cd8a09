"""What the intervals say of samples whose answer is known."""

import numpy as np
import pytest

from ppkd.study.bootstrap import Interval, Sample, image_draws, image_interval, seed_and_image_interval

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.02, size=4000)


def sample(*means, noise=NOISE):
    """Seeds with these AP, all moved alike by the images that are drawn."""
    return Sample(np.array(means), np.array(means)[:, None] + noise)


def test_every_draw_has_as_many_images_and_is_the_same_again():
    draws = image_draws(50, 300)
    assert draws.shape == (300, 50) and (draws.sum(axis=1) == 50).all()
    assert draws.mean() == 1 and 0.9 < draws.var() < 1.1
    assert (draws == image_draws(50, 300)).all()


def test_what_the_images_do_to_both_alike_is_no_doubt_about_the_difference():
    """Paired: the same images for both sides."""
    interval = image_interval(sample(0.31), sample(0.30))
    assert (interval.low, interval.high) == pytest.approx((0.01, 0.01))
    assert interval.verdict == "better"


def test_what_the_images_do_to_one_side_is():
    interval = image_interval(sample(0.31), sample(0.30, noise=0))
    assert interval.low == pytest.approx(0.01 - 1.96 * 0.02, abs=0.003)
    assert interval.high == pytest.approx(0.01 + 1.96 * 0.02, abs=0.003)
    assert interval.verdict == "not told apart"


def test_it_is_centred_on_what_was_observed():
    """AP of sets with images twice is a little higher; that is no gain."""
    interval = image_interval(sample(0.31, noise=NOISE + 0.05), sample(0.30, noise=0))
    assert (interval.low + interval.high) / 2 == pytest.approx(0.01, abs=0.002)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_seeds_that_differ_spread_it_as_new_trainings_would(count, monkeypatch):
    """Without the factor the spread would be too small by sqrt((n - 1) / n)."""
    kept = []
    monkeypatch.setattr("ppkd.study.bootstrap.np.quantile", lambda drawn, tails: kept.append(drawn) or (0, 0))
    means = np.array([0.30, 0.33, 0.31, 0.35, 0.29])[:count]
    one, other = sample(*means, noise=np.zeros(40000)), sample(0.2, 0.2, noise=np.zeros(40000))
    seed_and_image_interval(one, other)
    assert kept[0].std() == pytest.approx(means.std(ddof=1) / np.sqrt(count), rel=0.02)
    image_interval(one, other)
    assert kept[1].std() == pytest.approx(0, abs=1e-12), "these weights on other images: no seeds in it"


def test_one_seed_says_nothing_of_other_seeds():
    assert seed_and_image_interval(sample(0.3), sample(0.2, 0.21)) is None
    assert seed_and_image_interval(sample(0.3, 0.4), sample(0.2)) is None


def test_verdicts():
    assert [Interval(*ends).verdict for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1))] == [
        "better", "worse", "not told apart",
    ]  # fmt: skip
