"""Commands of ppkd in processes of their own, which do not outlive this one."""

import ctypes
import os
import signal
import subprocess
import sys

from ppkd.files.write import adding, make_own_folder

_PR_SET_PDEATHSIG = 1


def ppkd(*words):
    """The command line that runs ``ppkd WORDS`` with this Python."""
    return [sys.executable, "-m", "ppkd", *words]


def environment():
    """In which a child imports what this process imports, from the same places in the same order."""
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    return {**os.environ, "PYTHONPATH": places, "PYTHONSAFEPATH": "1"}


def start(words, log, more=None, append=False):
    """Start ``ppkd WORDS`` with what it prints in the file `log`; where this process ends, it is asked to end too.

    It is in a session of its own: Ctrl-C is this process's, which asks once. A second signal would end a run unsaved.

    Args:
        words: arguments.
        log: path; its folder is made.
        more: further variables of the environment.
        append: keep what an earlier process printed.

    Returns:
        ``subprocess.Popen``.

    Raises:
        UserError: the log cannot be written, or is a link.
    """
    make_own_folder(os.path.dirname(log))
    with adding(log, keep=append) as file:
        given = {"env": {**environment(), **(more or {})}, "preexec_fn": _end_with_parent, "start_new_session": True}
        return subprocess.Popen(ppkd(*words), stdout=file, stderr=subprocess.STDOUT, **given)


def tail(path, lines=15):
    """The last lines of a log."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-lines:]).rstrip()


def _end_with_parent():
    """Linux tells a process of its parent's end, also where that was killed; a run then saves itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
