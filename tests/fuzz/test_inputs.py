"""The bounds that the fuzz tests put on each input hold, and the long run has as many as it says."""

import time

import numpy as np
import pytest

from tests.fuzz import inputs


@pytest.fixture
def tally():
    return {"inputs": 0, "seconds": 0.0, "bytes": 0}


def test_the_long_run_has_200_000_inputs():
    assert sum(inputs.SHARES.values()) >= 200_000
    assert min(inputs.SHARES.values()) >= 1_000


def _compute():
    while True:
        try:
            sum(range(1000))
        except Exception:  # what is tried may catch what it likes
            continue


@pytest.mark.parametrize("bound, work", [("SECONDS", _compute), ("WAITING", lambda: time.sleep(60))])
def test_an_input_that_does_not_end_fails(monkeypatch, tally, bound, work):
    monkeypatch.setattr(inputs, bound, 0.05)
    with pytest.raises(AssertionError, match="took more than"), inputs.Bounds(tally):
        work()
    assert tally["inputs"] == 1


@pytest.mark.skipif(inputs._RESET is None, reason="this system does not tell")
def test_an_input_that_grows_fails_though_it_gives_all_back(monkeypatch, tally):
    monkeypatch.setattr(inputs, "BYTES", 20e6)
    np.ones(10_000_000)  # before
    # Far more than what the C library may have kept of former tests, which is no growth.
    with pytest.raises(AssertionError, match=r"took 0\.[1-4]. GB"), inputs.Bounds(tally):
        np.ones(40_000_000)
    with inputs.Bounds(tally):
        np.ones(100_000)
    assert tally["inputs"] == 2 and tally["bytes"] > 100e6


def test_an_error_of_an_input_stays_itself(tally):
    with pytest.raises(KeyError), inputs.Bounds(tally):
        {}["x"]
