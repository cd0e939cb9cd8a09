"""Opens files of anyone for reading: a FIFO is waited for, a device may do anything, and a folder holds no text."""

import os
import stat

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


class NotAFile(OSError):
    """What a path leads to is no regular file.

    Attributes:
        strerror: what it is, in a few words.
    """

    def __str__(self):
        return self.strerror


def open_file(path, mode="r", *args, **options):
    """``open`` for reading a regular file; links are followed, nothing is waited for.

    Raises:
        NotAFile: it is a folder, FIFO, socket or device, which is said without opening it.
        OSError: as ``open``.
    """
    return open(path, mode, *args, opener=_open, **options)


def check_file(path):
    """Check that a path that somebody else opens leads to a regular file.

    Raises:
        NotAFile: it is something else.
        OSError: there is nothing, or it cannot be looked at.
    """
    _check(path, os.stat(path).st_mode)


def _open(path, flags):
    check_file(path)  # opening alone may act on a device
    # Without waiting, if it has become a FIFO meanwhile.
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _check(path, os.fstat(handle).st_mode)
    except NotAFile:
        os.close(handle)
        raise
    return handle


def _check(path, mode):
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotAFile(0, f"is {kind}, not a file", os.fspath(path))
