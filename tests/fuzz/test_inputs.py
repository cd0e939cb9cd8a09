"""The bounds that the fuzz tests put on each input hold, and the long run has as many as it says."""

import mmap
import time

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


def _hold(size):
    """Take pages of the system, and give them back: what the C library kept of former tests would be no growth."""
    with mmap.mmap(-1, size) as pages:
        pages[:: mmap.PAGESIZE] = b"x" * len(range(0, size, mmap.PAGESIZE))


@pytest.mark.skipif(inputs._RESET is None, reason="this system does not tell")
def test_an_input_that_grows_fails_though_it_gives_all_back(monkeypatch, tally):
    monkeypatch.setattr(inputs, "BYTES", 20e6)
    _hold(80_000_000)  # before
    with pytest.raises(AssertionError, match=r"took 0\.1[5-7] GB"), inputs.Bounds(tally):
        _hold(160_000_000)
    with inputs.Bounds(tally):
        _hold(800_000)
    assert tally["inputs"] == 2 and tally["bytes"] > 100e6


def test_an_error_of_an_input_stays_itself(tally):
    with pytest.raises(KeyError), inputs.Bounds(tally):
        {}["x"]
