"""Opens files of anyone for reading: a FIFO is waited for, a device may do anything, and a folder holds no text."""

import os
import stat

_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
# Bytes from which on a file is looked at for being a hole: 1/1000 of it is on the disk.
_LARGE, _HOLLOW = 1 << 30, 1000


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
        NotAFile: it is a folder, FIFO, socket or device, which is said without opening it; or a file of holes,
            which take no space on the disk and as much memory as they claim.
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
        found = os.fstat(handle)
        _check(path, found.st_mode)
        if found.st_size > _LARGE and _is_hollow(handle, found):
            raise NotAFile(0, f"is a sparse file that claims {found.st_size / 1e6:.0f} MB and holds nothing", path)
    except NotAFile:
        os.close(handle)
        raise
    return handle


def _is_hollow(handle, found):
    """Whether a file is holes alone; file systems that do not know them, or count no blocks, say that it is not."""
    if getattr(found, "st_blocks", found.st_size) * 512 * _HOLLOW > found.st_size or not hasattr(os, "SEEK_HOLE"):
        return False
    hole = os.lseek(handle, 0, os.SEEK_HOLE)
    os.lseek(handle, 0, os.SEEK_SET)
    return hole < found.st_size


def _check(path, mode):
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotAFile(0, f"is {kind}, not a file", os.fspath(path))
