"""The one way to write: a file is there whole or as it was, no link is followed, and a full disk is one line."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat

from ppkd.errors import UserError
from ppkd.files.scratch import PREFIX, scratch_folder

_ROOM = 1 << 16
# What is being written bears such a name, which is nobody else's: what a killed process leaves is known by it.
_UNFINISHED = re.compile(r"\..+\.ppkd-[0-9a-f]{12}")


@contextlib.contextmanager
def replacing(path, note="", keep=False):
    """A block that writes a file under a temporary name, which it is given; afterwards `path` is that file.

    The content is on the disk before the name is. Where `path` is a link, it is the link that is replaced.

    Args:
        path: the file to write; its folder has to be there.
        note: what else to say when it cannot be written.
        keep: whether a file that another process has made meanwhile stays as it is, in place of this one.

    Raises:
        UserError: the disk is full, the folder not writable, or `path` no place for a file; `path` is as it was.
    """
    temporary = None
    try:
        _check_place(path)
        temporary = _new_file(path)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        (_link if keep else os.replace)(temporary, path)
        _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {_reason(error)}{note}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.remove(temporary)


def write_text(path, text):
    """Write a text file in UTF-8, and its folder if there is none.

    Raises:
        UserError: as `replacing`.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path, data):
    """Write a file, and its folder if there is none.

    Raises:
        UserError: as `replacing`.
    """
    make_folder(os.path.dirname(path))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def append(path, text, note=""):
    """Add to the end of a text file all of a text or, on a full disk, nothing.

    Raises:
        UserError: as `adding`.
    """
    with adding(path, note) as handle:
        before = os.fstat(handle).st_size
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError:
            os.ftruncate(handle, before)
            raise


@contextlib.contextmanager
def adding(path, note="", keep=True):
    """The handle of a file, of which all that is written stands behind what there is.

    Args:
        note: behind the message of an error.
        keep: what the file holds already.

    Raises:
        UserError: it cannot be written, or is a link or no file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        _check_place(path)
        handle = os.open(path, flags, 0o666)
        try:
            if not keep:
                os.ftruncate(handle, 0)
            yield handle
        finally:
            os.close(handle)
    except OSError as error:
        link = os.path.islink(path)
        reason = "it is a link, and links are not followed in writing" if link else _reason(error)
        raise UserError(f"{path}: cannot be written: {reason}{note}") from error


def make_folder(path):
    """Make a folder and those above it, unless they are there; the empty path is where we are.

    Raises:
        UserError: it cannot be made.
    """
    try:
        os.makedirs(path or ".", exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: the folder cannot be made: {_reason(error)}") from error


def make_own_folder(path):
    """As `make_folder`, for one that lies in a folder of somebody and has its name from ppkd: it is no link elsewhere.

    Raises:
        UserError: as `make_folder`; there is a link.
    """
    if os.path.islink(path):
        raise UserError(f"{path}: is a link, and links are not followed in writing; remove it")
    make_folder(path)


@contextlib.contextmanager
def filling(folder):
    """A block in which others write files into a temporary folder, which it is given; then all move into `folder`.

    None of them moves before all are written; one that is there already is replaced, others stay. Folders inside of
    the temporary one do not move.

    Raises:
        UserError: as `replacing`; what a full disk lets fail inside of the block as well; another process is filling
            the folder: files of the two belong together no more.
    """
    made_for_it = lacking(folder)
    make_folder(folder)
    try:
        with alone(folder), scratch_folder(folder) as scratch:
            yield scratch
            _check_room(scratch)
            made = [name for name in sorted(os.listdir(scratch)) if os.path.isfile(os.path.join(scratch, name))]
            for name in made:
                _check_place(os.path.join(folder, name))
                with open(os.path.join(scratch, name), "rb+") as file:
                    os.fsync(file.fileno())
            for name in made:
                os.replace(os.path.join(scratch, name), os.path.join(folder, name))
    except OSError as error:
        if not is_of_the_disk(error) and str(error.filename or "").find(PREFIX) < 0:
            raise  # of something that was read
        raise UserError(f"{folder}: cannot be written: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            for each in made_for_it:
                os.rmdir(each)  # unless there is something in it


def lacking(folder):
    """The folders that have to be made for `folder`, the deepest first."""
    folder, found = os.path.abspath(folder), []
    while not os.path.lexists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


@contextlib.contextmanager
def alone(folder):
    """A block in which no other process fills a folder. The lock is on the folder itself, and goes with the process.

    Raises:
        UserError: another process has it.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a folder that may be written to and not read
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another command is writing into {folder}: wait until it has ended, or give this one another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # processes that load, forked meanwhile, have the handle as well
        os.close(handle)


def is_of_the_disk(error):
    """Whether an `OSError` says that a disk is full or cannot be written to."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def remove_leftovers(folder):
    """Remove what processes that were killed while they wrote into a folder have left behind."""
    for entry in os.scandir(folder):
        if _UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            os.remove(entry.path)


def _new_file(path):
    """An empty file beside `path`: made here, so that nothing that is there already is written to."""
    folder, name = os.path.split(path)
    while len(os.fsencode(name)) > 200:
        name = name[:-1]
    temporary = os.path.join(folder, f".{name}.ppkd-{secrets.token_hex(6)}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return temporary


def _link(temporary, path):
    """Give a file its name unless there is one of it: `os.replace` would take another's."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as error:
        if is_of_the_disk(error):
            raise
        if not os.path.lexists(path):
            os.replace(temporary, path)  # a file system without hard links


def _check_place(path):
    """Refuse what is no place for a file: a folder, a FIFO, a device or what stands for an open file (/dev/stdout)."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(0, "there is a folder of that name" if stat.S_ISDIR(mode) else "it is no file")
        if os.path.islink(path) and os.readlink(path).startswith("/proc/"):
            raise OSError(0, "it stands for an open file")


def _check_room(folder):
    """Paddle writes weights without looking whether the disk took them; one that could not will take no more either."""
    path = os.path.join(folder, ".room")
    with open(path, "wb") as file:
        file.write(bytes(_ROOM))
        file.flush()
        os.fsync(file.fileno())
    os.remove(path)


def _sync_folder(folder):
    """Flush the renaming itself, without which a crash of the machine may undo it."""
    handle = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error):
    return error.strerror or str(error)


def check_writable(option, folder):
    """Check that `folder` can be made or written to, before the work whose result goes there; None is no folder."""
    existing = os.path.abspath(folder or ".")
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise UserError(f"{option} {folder}: {existing} is a file, so there can be no folder of that name")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{option} {folder}: {existing} is not writable")
