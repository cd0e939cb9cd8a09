"""Text of others on a terminal and in the log: it can be seen, and neither acts nor forges a line."""

import io
import logging

import pytest

from ppkd import cli
from ppkd.errors import UserError
from ppkd.terminal.log import handler, logger
from ppkd.terminal.table import text_table
from ppkd.terminal.text import escape_logs, printable

ACTING = {
    "an escape": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "one of eight bits": ("a\x9b2Jb", r"a\x9b2Jb"),
    "a return": ("good\rbad", r"good\rbad"),
    "a new line": ("a\n12:00:00 I AP 99.9", r"a\n12:00:00 I AP 99.9"),
    "a separator of lines": ("a\u2028b\x85c\x0bd", r"a\u2028b\x85c\x0bd"),
    "the direction": ("a\u202egpj.exe\u2066", r"a\u202egpj.exe\u2066"),
    "nothing to be seen": ("a\u200bb\ufeff\U000e0041", r"a\u200bb\ufeff\U000e0041"),
    "half a character": ("a\udc80", r"a\udc80"),
    "a title": ("\x1b]0;evil\x07", r"\x1b]0;evil\x07"),
}


@pytest.mark.parametrize("name", ACTING)
def test_what_acts_is_written_out(name):
    text, shown = ACTING[name]
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["plain text", "bildgröße", "图片 1.jpg", "кот\u00a0и пёс", "全角\u3000空格", "🙂"])
def test_what_is_text_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("name", [name for name in ACTING if name != "half a character"])  # no report can hold that one
def test_the_log_an_error_and_a_table_show_it(monkeypatch, capsys, name):
    text, shown = ACTING[name]
    stream = io.StringIO()
    monkeypatch.setattr(handler(), "stream", stream)
    logger().warning("%s: no image", text)
    assert stream.getvalue().endswith(f"{shown}: no image\n") and stream.getvalue().count("\n") == 1

    def command(args):
        raise UserError(f"{text}: no such file")

    with pytest.raises(SystemExit):
        cli.run(cli.halve_parser(), command, ["a", "b"])
    assert capsys.readouterr().err.splitlines() == [f"ppkd: error: {shown}: no such file"]
    assert text_table([("name", "AP"), (text, "1.0")]).splitlines()[2].startswith(shown)


def test_lines_of_other_logs_cannot_be_forged(monkeypatch):
    """ppdet's: a message may have lines, of which the further ones are seen to belong to it."""
    former = logging.getLogRecordFactory()
    try:
        escape_logs()
        found = ("a\n12:00 I\x1b[0m",)
        record = logging.getLogger("ppdet.data").makeRecord("x", 20, "f", 1, "%s is bad\nReally", found, None)
        assert record.getMessage() == "a\n    12:00 I\\x1b[0m is bad\n    Really"
    finally:
        logging.setLogRecordFactory(former)
