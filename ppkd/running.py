"""Running a command: what has to be there before, and errors as one line."""

import importlib
import os
import select
import signal
import sys
import traceback
import warnings

from ppkd.bridge import gate
from ppkd.bridge.host import check_host
from ppkd.bridge.imports import why_not_found
from ppkd.errors import UserError
from ppkd.files.write import is_of_the_disk
from ppkd.terminal.log import coloured
from ppkd.terminal.text import escape_logs, printable
from ppkd.training.stopping import Stopped

# Set to anything: an error that nobody foresaw is shown with the way there.
_TRACEBACK = "PPKD_TRACEBACK"


def run(parser, command, argv=None):
    """Parse arguments, run `command(args)` and exit: 0, or 1 with one line for a user's mistake.

    Args:
        command: a function of `commands`, or its name there, looked up once Paddle and ppdet are known to be there.
    """
    args = parser.parse_args(argv)
    gate.allow(getattr(args, "allow_classes", ()))
    escape_logs()
    _take_any_text()
    # Paddle 3 says at import that compiling extensions would be quicker with it. Nothing here is compiled.
    warnings.filterwarnings("ignore", message="No ccache found")
    try:
        _check_here()
        if command != "configs":  # which reads no more than ppkd's own files
            check_host()
        if isinstance(command, str):
            command = getattr(importlib.import_module("ppkd.commands"), command)
        if getattr(args, "allow_plugins", False):
            from ppkd.engine import plugin_files

            plugin_files.permit()
        command(args)
        if sys.stdout is not None:  # closed
            sys.stdout.flush()
    except UserError as error:
        _end(printable(error))
    except Stopped as stopped:
        print(f"ppkd: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print("ppkd: stopped by the user", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            sys.exit(128 + signal.SIGPIPE)
        if isinstance(error, OSError) and is_of_the_disk(error):
            _end(f"cannot be written: {printable(error)}")
        if isinstance(error, MemoryError):
            _end("there is not enough memory for it: fewer images a batch, smaller ones, or fewer processes need less")
        if os.environ.get(_TRACEBACK):
            raise
        _end(printable(why_not_found(error) or _unexpected(error)))


def say(text):
    """Print what needs no command; nobody need read it to its end (``ppkd --help | head``)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        sys.exit(128 + signal.SIGPIPE)


def _check_here():
    """Refuse to run where there is no current folder, which relative paths would be below."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder has been removed; go to another, or into it anew") from None


def _take_any_text():
    """Write out what the terminal's encoding lacks (``LC_ALL=C``), in place of ending when all is done."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _reader_has_gone():
    """Whether nobody reads any more what is printed, as behind ``ppkd configs | head``; from then on nothing is."""
    try:
        looking = select.poll()
        looking.register(sys.stdout, 0)
        gone = any(event & select.POLLERR for _, event in looking.poll(0))
        if gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return gone
    except (AttributeError, OSError, ValueError):  # no such call on this system; no file behind it
        return False


def _end(message):
    """Say in one line why it ends, and end."""
    print(f"{coloured('ppkd: error:', 'red', sys.stderr)} {message}", file=sys.stderr)
    # Under paddle.distributed.launch a rank that stops must not leave the others waiting.
    sys.stderr.flush()
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        os._exit(1)
    sys.exit(1)


def _unexpected(error):
    """What goes wrong in ppdet or Paddle with values of a config that can be seen to be wrong nowhere before."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = printable(" ".join(f"{type(error).__name__}: {error}".split())[:300])
    return (
        f"{what} (in {printable(place.filename)}, line {place.lineno}). Some value in the files given does not fit, or "
        f"ppkd is wrong here: {_TRACEBACK}=1 before the command shows the way there"
    )
