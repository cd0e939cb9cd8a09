"""What ppdet warns of, in this log: its own handlers keep the standard output of the moment that it was imported in."""

import logging
import re
from collections import Counter

from ppkd.terminal.log import logger

# Lines of one place of ppdet's code, of which each names another image or box.
_SHOWN = 3
# What is told otherwise: by `class_names`, `datasets` and `bad_images`, with counts and the key that helps.
_NOISE = re.compile(
    r"anno_file .* is None or not set or not exist|metric_type: .*, load default categories"
    r"|Illegal image file: |fail to map (sample|batch) transform"
)


class _Ours(logging.Handler):
    """Says each warning once, and of those of one kind the first few."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.kinds, self.said = Counter(), set()

    def emit(self, record):
        text = " ".join(record.getMessage().split())
        kind = record.pathname, record.lineno
        if _NOISE.match(text) or text in self.said or self.kinds[kind] > _SHOWN:
            return
        self.kinds[kind] += 1
        if self.kinds[kind] > _SHOWN:
            text = f"and more of this kind, which are not shown: {text[:40]}..."
        self.said.add(text)
        logger().log(record.levelno, "ppdet: %s", text)


_ours = _Ours()


def route():
    """Send warnings and errors of all loggers of ppdet, now and to come, to this log; the rest of what they say is not
    shown. ppdet has to be imported. Again it changes nothing."""
    from ppdet.utils import logger as theirs

    for name in theirs.logger_initialized:
        _take(logging.getLogger(name))
    if not hasattr(theirs.setup_logger, "routed"):
        make = theirs.setup_logger

        def setup_logger(*args, **kwargs):
            return _take(make(*args, **kwargs))

        setup_logger.routed = True
        theirs.setup_logger = setup_logger


def _take(log):
    for handler in list(log.handlers):
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
    if _ours not in log.handlers:
        log.addHandler(_ours)
    return log
