"""Folders for what is not finished: gone with the block that fills them, or, after a kill, with the next one."""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time

PREFIX = ".unfinished-"
_NAME = re.compile(re.escape(PREFIX) + r"[0-9a-z_]{8}")
# Seconds within which a new folder has its lock.
_SETTLED = 60


@contextlib.contextmanager
def scratch_folder(parent):
    """A block with a folder of its own in `parent`; nothing of it is left afterwards, unless it has another name then.

    What processes that were killed in such a block have left there is removed first: nobody holds its lock.

    Raises:
        OSError: it cannot be made.
    """
    for entry in os.scandir(parent):
        if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            _remove_abandoned(entry.path)
    path = tempfile.mkdtemp(dir=parent, prefix=PREFIX)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        finally:
            os.close(handle)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(path):
    with contextlib.suppress(OSError):  # it is locked, or somebody else's
        if time.time() - os.stat(path).st_mtime < _SETTLED:
            return
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)
