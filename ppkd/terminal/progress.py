"""A bar with the time left below the log, on a terminal; elsewhere the log's lines are all there is."""

import contextlib
import logging

from tqdm import tqdm

from ppkd.terminal.log import handler, is_terminal, logger


class _Bar(tqdm):
    monitor_interval = 0  # no thread: processes that load images are forked from this one


@contextlib.contextmanager
def progress(what, total, done=0):
    """A bar for the ``with`` block, which leaves nothing behind.

    Args:
        what: text in front of it.
        total: number of batches.
        done: how many of them were done before.

    Yields:
        An object with ``update()``, to be called after each batch, and ``close()``; None where the log goes to no
        terminal, or says nothing.
    """
    lines = handler()
    if not is_terminal(lines.stream) or not logger().isEnabledFor(logging.INFO):
        yield None
        return
    # Drawn after every batch, which takes far longer, and not before the first: then Paddle's kernels warn of what they
    # do once, past any log.
    options = {"unit": "batch", "leave": False, "dynamic_ncols": True, "miniters": 1, "mininterval": 0, "delay": 1e-6}
    bar = _Bar(total=total, initial=done, desc=what, file=lines.stream, **options)
    try:
        with lines.above(bar):
            yield bar
    finally:
        bar.close()


def follow(batches, what, total, done=0):
    """The `batches`, one by one, with a bar as `progress` shows it."""
    with progress(what, total, done) as bar:
        for batch in batches:
            yield batch
            if bar is not None:
                bar.update()
