"""The log: lines on standard output, from rank 0 alone; errors from every rank. Colours are for terminals."""

import contextlib
import io
import logging
import os
import sys

from ppkd.terminal.text import printable

_NAME = "ppkd"
_COLOURS = {"red": 31, "yellow": 33}


def logger():
    """ppkd's logger, set up at the first call."""
    log = logging.getLogger(_NAME)
    if not log.handlers:
        lines = _Lines(sys.stdout)
        lines.setFormatter(_Printable("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
        log.addHandler(lines)
        log.propagate = False
        log.setLevel(logging.INFO if os.environ.get("PADDLE_TRAINER_ID", "0") == "0" else logging.ERROR)
    return log


def handler():
    """The log's own handler: its ``stream``, and ``above(bar)`` for a bar that stays below the lines."""
    return next(each for each in logger().handlers if isinstance(each, _Lines))


class _Printable(logging.Formatter):
    """A message is one line, whatever stands in it."""

    def formatMessage(self, record):
        record.message = printable(record.message)
        return super().formatMessage(record)


class _Lines(logging.StreamHandler):
    _bar = _process = None

    @contextlib.contextmanager
    def above(self, bar):
        """Within the ``with`` block `bar` gives way to each line: it has ``clear()`` and ``refresh()``."""
        former = self._bar, self._process
        # A process that loads images is forked with the bar in it, and must not draw it.
        self._bar, self._process = bar, os.getpid()
        try:
            yield
        finally:
            self._bar, self._process = former

    def emit(self, record):
        if self._bar is None or self._process != os.getpid():
            super().emit(record)
            return
        self._bar.clear()
        super().emit(record)
        self._bar.refresh()

    def format(self, record):
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return coloured(text, "red" if record.levelno >= logging.ERROR else "yellow", self.stream)
        return text


def is_terminal(stream):
    """Whether a person looks at `stream`, on something that can move its cursor."""
    return not stream.closed and stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text, colour, stream):
    """`text` in ``red`` or ``yellow`` if `stream` is a terminal and ``NO_COLOR`` (no-color.org) is not set."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


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


def hushed():
    """A block in which nothing is printed, as pycocotools does of its own steps; this log goes on."""
    logger()  # which keeps the standard output of now
    return contextlib.redirect_stdout(io.StringIO())


def counted(number, what):
    """``1 epoch``, ``2 epochs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds):
    """Seconds as ``1:02:03`` or ``2:03``."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
