"""What each input may take, ten seconds of computing and a gigabyte; and how many there are of each kind."""

import collections
import functools
import os
import re
import signal
import time

from hypothesis import given, settings

# Inputs of each kind in the long run. Those that cost much, a student is built as training builds it, have few.
SHARES = {
    "test_students[retinanet]": 1_500,
    "test_students[ppyoloe]": 1_000,
    "test_teachers": 1_000,
    "test_recipes": 3_000,
    "test_recorded_recipes": 3_000,
    "test_states_of_a_run": 2_000,
    "test_resume_files": 6_000,
    "test_records_of_training": 14_000,
    "test_annotations": 2_000,
    "test_files_of_annotations": 4_000,
    "test_images[changed]": 12_000,
    "test_images[bytes]": 12_000,
    "test_pickles[mutated]": 24_000,
    "test_pickles[programs]": 24_000,
    "test_pickles[bytes]": 20_000,
    "test_safetensors": 20_000,
    "test_torchs_files": 8_000,
    "test_torchs_programs": 18_000,
    "test_files": 7_000,
    "test_files_of_bytes": 6_000,
    "test_overrides": 6_000,
    "test_sources": 2_500,
    "test_schedules": 2_500,
    "test_targets": 2_500,
    "test_names": 2_500,
}
SECONDS, WAITING, BYTES = 10, 300, 10**9


class TooMuch(BaseException):
    """An input took too long; no ``except Exception`` of what is tried may catch it."""


def inputs(*strategies):
    """``hypothesis.given`` for the kind that the running test is: each input within the bounds, and counted.

    In the long run there are as many inputs as `SHARES` says, else those of the profile.
    """

    def decorate(check):
        kind = _running()
        share = SHARES[kind]
        tally = TALLY[kind]

        @given(*strategies)
        @functools.wraps(check)
        def run(*args, **kwargs):
            with Bounds(tally):
                check(*args, **kwargs)

        return settings(max_examples=max(1, round(share * SCALE)))(run) if LONG else run

    return decorate


LONG = False
SCALE = float(os.environ.get("FUZZ_SCALE", 1))
TALLY = collections.defaultdict(lambda: {"inputs": 0, "seconds": 0.0, "bytes": 0})


def _running():
    return re.search(r"::(\w+(\[.*\])?) \(call\)$", os.environ["PYTEST_CURRENT_TEST"])[1]


class Bounds:
    """A block that fails if it computes for more than `SECONDS`, waits for `WAITING`, or grows by more than `BYTES`.

    Args:
        tally: counts the blocks, and keeps the most that one took.
    """

    def __init__(self, tally):
        self._tally = tally

    def __enter__(self):
        self._before, self._started = _resident_now(), time.process_time()
        self._former = [(which, signal.signal(which, _stop)) for which in (signal.SIGPROF, signal.SIGALRM)]
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING)

    def __exit__(self, kind, error, _):
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for which, handler in self._former:
            signal.signal(which, handler)
        seconds, grown = time.process_time() - self._started, _most_resident() - self._before
        self._tally["inputs"] += 1
        self._tally["seconds"] = max(self._tally["seconds"], seconds)
        self._tally["bytes"] = max(self._tally["bytes"], grown)
        if kind is TooMuch:
            raise AssertionError(f"an input took more than {SECONDS} s, or waited {WAITING} s") from error
        assert seconds <= SECONDS, f"an input took {seconds:.1f} s"
        assert grown <= BYTES, f"an input took {grown / 1e9:.2f} GB"


def _stop(which, frame):
    raise TooMuch


# Linux keeps the most that a process ever held, and forgets it when 5 is written here.
try:
    _RESET = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    _STATUS = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
except OSError:  # another system: memory is not looked at
    _RESET = _STATUS = None


def _resident_now():
    if _RESET is None:
        return 0
    os.pwrite(_RESET, b"5", 0)
    return _most_resident()


def _most_resident():
    """Bytes that this process has held at most since it was asked to forget."""
    return int(re.search(rb"VmHWM:\s*(\d+) kB", os.pread(_STATUS, 4096, 0))[1]) * 1024 if _STATUS is not None else 0


def summary():
    """What was run, a line a kind."""
    rows = [(kind, *TALLY[kind].values()) for kind in TALLY]
    lines = [f"{kind:<28} {count:>7} inputs, at most {seconds:6.2f} s and {grown / 1e6:6.1f} MB each"
             for kind, count, seconds, grown in rows]  # fmt: skip
    return [*lines, f"{'all':<28} {sum(row[1] for row in rows):>7} inputs"]
