"""Writing files for a test, and running what a tool runs without the seconds that a new process costs."""

import contextlib
import io
import logging
import pathlib
from unittest import mock

from ppkd import cli, commands
from ppkd.bridge import compat
from ppkd.bridge.workspace import import_ppdet

TOOLS = {
    "train": (cli.train_parser, commands.train),
    "eval": (cli.eval_parser, commands.evaluate),
    "infer": (cli.infer_parser, commands.infer),
    "export_model": (cli.export_parser, commands.export),
    "convert": (cli.convert_parser, commands.convert),
    "explain": (cli.explain_parser, commands.explain),
    "doctor": (cli.doctor_parser, commands.doctor),
    "layers": (cli.layers_parser, commands.layers),
    "report": (cli.report_parser, commands.report),
    "compare": (cli.compare_parser, commands.compare),
    "configs": (cli.configs_parser, "configs"),
    "hosts": (cli.hosts_parser, commands.hosts),
}

# Wherever a test runs, nothing answers there: downloads fail as they do without a network.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def write(path, text):
    """Write a text file, with the folders it needs, and return its path as text."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def call(name, *args):
    """Run what ``tools/NAME.py ARGS`` runs, in this process.

    Returns:
        ``(exit code, what was written to standard error)``.
    """
    parser, command = TOOLS[name]
    if not compat.STATES:  # or the first command in this process tells what a clone says when it is imported
        import_ppdet()
    errors = io.StringIO()
    # Loggers of an earlier test may still hold its closed stream; their complaints are not the tool's.
    with contextlib.redirect_stderr(errors), mock.patch.object(logging, "raiseExceptions", False):
        try:
            cli.run(parser(), command, [str(arg) for arg in args])
        except SystemExit as stop:
            return stop.code, errors.getvalue()
    return 0, errors.getvalue()


_OF_A_CLONE = ("Warning: import ppdet from source", "Warning: Unable to use numba")


def the_error(code, errors):
    """The text of the one line ``ppkd: error: ...`` that a failed tool leaves on standard error."""
    assert code == 1, (code, errors)
    # matplotlib's one line about its font cache, the first time on a machine, is not the tool's, nor is what a clone of
    # PaddleDetection says when it is imported.
    lines = [line for line in errors.splitlines() if not line.startswith(_OF_A_CLONE) and "font_manager" not in line]
    lines = [line for before, line in zip(["", *lines], lines) if "SyntaxWarning" not in before + line]
    assert len(lines) == 1, errors
    assert lines[0].startswith("ppkd: error: "), errors
    return lines[0].removeprefix("ppkd: error: ")
