"""Times of several ways to do the same, taken in turn, so that a slow moment of the machine hits all of them."""

import statistics
import time

import paddle


def interleaved(sides, repeats=9, warmup=2):
    """Median seconds of each side: name -> seconds; see `samples`."""
    return {name: statistics.median(values) for name, values in samples(sides, repeats, warmup).items()}


def samples(sides, repeats=9, warmup=2):
    """Seconds of each side, round by round.

    On the CPU these are seconds that the process computes (all its threads), so that other work on the machine does
    not count; with one thread on an idle machine that is the time that passes. On a GPU they come from device events.

    Args:
        sides: name -> function without arguments.
        repeats: rounds that count.
        warmup: rounds before them.

    Returns:
        Name -> list of seconds.
    """
    clock = _device_seconds if on_gpu() else _process_seconds
    found = {name: [] for name in sides}
    for number in range(warmup + repeats):
        for name, side in sides.items():
            seconds = clock(side)
            if number >= warmup:
                found[name].append(seconds)
    return found


def on_gpu():
    """Whether Paddle computes on a GPU here."""
    return paddle.get_device().startswith("gpu")


def _process_seconds(side):
    begin = time.process_time()
    side()
    return time.process_time() - begin


def _device_seconds(side):
    begin, end = (paddle.device.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    side()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
