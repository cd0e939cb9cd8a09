"""What becomes of Paddle's loading processes when their parent ends, and of it when one of them does."""

import contextlib
import ctypes
import functools
import os
import re
import signal
import sys
import threading
import time
from multiprocessing import parent_process

from ppkd.errors import UserError

_MARK = "patched_by_ppkd"
_SECONDS = 2  # between two looks for the parent, where the system does not tell
_DIED_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_KILLED = "Blocking queue is killed"  # what reaches who takes batches, where Paddle's own thread saw it first
_LOST = re.compile(r"DataLoader process \(pid\s*(\d+)\) exited is killed by signal: ([^.\n]*)")


def end_loading_processes_with_their_parent():
    """Let the processes of a DataLoader end when the process does that they load for.

    They wait for it to take a batch, for minutes or for ever, each with its memory, after it was killed.

    Needed for: Paddle 2.6 and 3.3, ``num_workers`` above 0.
    """
    from paddle.io.dataloader import dataloader_iter

    loop = dataloader_iter._worker_loop
    if not hasattr(loop, _MARK):
        dataloader_iter._worker_loop = functools.partial(_loop_with_parent, loop)
        setattr(dataloader_iter._worker_loop, _MARK, loop)


def _loop_with_parent(loop, *args, **kwargs):
    parent = parent_process().pid
    if not _told_by_the_system():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it has ended before the system was asked to tell
        os._exit(1)
    loop(*args, **kwargs)


def _told_by_the_system():
    """Whether the system will kill this process when its parent ends; Linux does if it is asked to."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None).prctl(_DIED_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0) == 0
    except (AttributeError, OSError):
        return False


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os._exit(1)


@contextlib.contextmanager
def lost_processes_are_told():
    """A block in which the death of a loading process ends the run with one line.

    Paddle raises ``SystemError`` for it wherever the program is.
    """
    try:
        yield
    except SystemError as error:
        found = _LOST.search(str(error))
        if found is None and _KILLED in str(error):
            raise UserError(
                "a loading process failed or was ended; if it printed why, that stands above, and -o worker_num=0 "
                "names the images. What was saved is as it was: a training goes on with -r auto"
            ) from error
        if found is None:
            raise
        # Where /dev/shm is full, writing to it is a bus error.
        full = "/dev/shm" if found[2].startswith("Bus") else "the machine's memory"
        raise UserError(
            f"a loading process ({found[1]}) was ended by a signal: {found[2].strip()}. If {full} is full, a smaller "
            "-o worker_num needs less of it. What was saved is as it was: a training goes on with -r auto"
        ) from error
