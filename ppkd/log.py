"""The log: plain lines on standard output, from rank 0 alone; errors from every rank."""

import contextlib
import io
import logging
import os
import sys

_NAME = "ppkd"


def logger():
    """ppkd's logger, set up at the first call."""
    log = logging.getLogger(_NAME)
    if not log.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO if os.environ.get("PADDLE_TRAINER_ID", "0") == "0" else logging.ERROR)
    return log


@contextlib.contextmanager
def quiet(progress=False, to=None):
    """A block in which ppdet and this log say nothing but warnings, and what is printed goes elsewhere.

    Args:
        progress: let this log speak.
        to: a stream for what is printed; None drops it.
    """
    theirs = [log for name, log in logging.root.manager.loggerDict.items() if name.startswith("ppdet")]
    loud = [*([] if progress else [logger()]), *(log for log in theirs if isinstance(log, logging.Logger))]
    levels = [(log, log.level) for log in loud]
    for log, level in levels:
        log.setLevel(max(level, logging.WARNING))
    try:
        with contextlib.redirect_stdout(to or io.StringIO()):
            yield
    finally:
        for log, level in levels:
            log.setLevel(level)


def duration(seconds):
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
