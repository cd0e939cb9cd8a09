"""The log: plain lines on standard output, from rank 0 alone; errors from every rank."""

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


def duration(seconds):
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
