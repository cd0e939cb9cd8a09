"""On a terminal a bar stands below whole lines of the log; elsewhere there are the lines alone."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from ppkd.terminal.log import coloured, handler, is_terminal, logger
from ppkd.terminal.progress import follow, progress
from ppkd.training.evaluation import _Watch
from tests.conftest import CONFIGS, ROOT

LINE = re.compile(r"(\x1b\[33m)?\d\d:\d\d:\d\d [IW] ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(command, cwd, **environment):
    """Run `command` with a pseudo-terminal as its standard output and error; exit code, and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 110, 0, 0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", **environment}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    return process.wait(timeout=60), written.decode()


def rows(written):
    """What stays on the screen: a carriage return goes back to the beginning of the row, and overwrites it."""
    seen = []
    for row in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for piece in row.split("\r"):
            shown = piece + shown[len(piece) :]
        seen.append(shown.rstrip())
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes):
    """A training of three steps and an evaluation on a terminal, with a warning in it."""
    command = [
        sys.executable, ROOT / "tools" / "train.py", "-c", CONFIGS / "retinanet_tiny.yml", "--eval", "--amp",
        "-o", f"dataset_dir={shapes}", "epoch=1", "log_iter=1", "TrainReader.batch_size=4",
        "EvalReader.batch_size=2",
    ]  # fmt: skip
    return on_a_terminal([str(part) for part in command], tmp_path_factory.mktemp("terminal"), NO_COLOR="")


def test_a_training_shows_a_bar_for_the_epoch_and_one_for_the_evaluation(trained):
    code, written = trained
    assert code == 0, written
    assert re.search(r"epoch 1/1: +67%\|[^|]+\| 2/3 \[\d\d:\d\d<\d\d:\d\d, ", written), "with the time left"
    assert re.search(r"evaluating: +67%\|[^|]+\| 2/3 \[\d\d:\d\d<\d\d:\d\d, ", written)


def test_the_bars_break_no_line_and_leave_nothing(trained):
    seen = rows(trained[1])
    lines = [row for row in seen if re.search(r"\d\d:\d\d:\d\d [IWE] ", row)]
    assert len(lines) >= 6 and all(LINE.match(row) for row in lines), seen
    assert not [row for row in seen if "%|" in row]
    steps = [row for row in lines if "step" in row and " left" in row]
    assert [re.search(r"step (\d)/3", row)[1] for row in steps] == ["1", "2", "3"]
    assert any("AP50" in row for row in lines)


def test_warnings_are_coloured_and_nothing_else(trained):
    starts = [LINE.match(row) for row in rows(trained[1])]
    levels = {(match[0][-2], bool(match[1])) for match in starts if match}
    assert levels == {("I", False), ("W", True)}


def test_an_evaluation_moves_its_bar_and_ends_it_before_the_metric_prints():
    engine, bar = SimpleNamespace(loader=range(3)), Mock()
    watch = _Watch(engine, bar)
    for step in range(3):
        assert not bar.close.called
        watch.on_step_end({"step_id": step})
    assert bar.update.call_count == 3 and bar.close.call_count == 1


def test_an_error_is_red_unless_no_colour_is_wanted(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "-c", "nowhere.yml"]
    code, written = on_a_terminal(command, tmp_path, NO_COLOR="")
    assert code == 1 and written.startswith("\x1b[31mppkd: error:\x1b[0m ")
    code, written = on_a_terminal(command, tmp_path, NO_COLOR="1")
    assert code == 1 and written.startswith("ppkd: error: ") and "\x1b" not in written


@pytest.fixture
def lines(monkeypatch):
    """Function that sends the log to a stream."""
    return lambda stream: monkeypatch.setattr(handler(), "stream", stream)


def test_elsewhere_there_are_plain_lines(lines):
    stream = io.StringIO()
    lines(stream)
    for number in follow(range(3), "epoch 1/1", 3):
        logger().warning("batch %d", number)
    with progress("evaluating", 3) as bar:
        assert bar is None
    assert [line[9:] for line in stream.getvalue().splitlines()] == ["W batch 0", "W batch 1", "W batch 2"]


def test_a_loop_that_is_left_takes_its_bar_with_it(lines):
    stream = Terminal()
    lines(stream)
    for _ in follow(range(3), "epoch 1/1", 3):
        break
    with pytest.raises(ZeroDivisionError):
        for number in follow(range(3), "epoch 2/2", 3):
            1 / (1 - number)
    logger().info("after")
    seen = rows(stream.getvalue())
    assert "epoch 2/2" in stream.getvalue() and len(seen) == 2 and seen[0].endswith(" I after") and not seen[1]


def test_a_silent_log_has_no_bar(lines):
    lines(Terminal())
    level = logger().level
    logger().setLevel(logging.ERROR)  # as of every rank but the first
    try:
        with progress("evaluating", 3) as bar:
            assert bar is None
    finally:
        logger().setLevel(level)


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_refused(name, value, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert coloured("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv(name, value)
    assert coloured("x", "red", Terminal()) == "x"
    assert is_terminal(Terminal()) == (name == "NO_COLOR")
