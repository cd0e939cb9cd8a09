"""A folder that one process at a time writes to."""

import contextlib
import fcntl
import os
import socket
import stat

from ppkd.errors import UserError
from ppkd.files.write import lacking
from ppkd.terminal.log import logger

FILE = ".ppkd.lock"
_held = set()


@contextlib.contextmanager
def held_alone(folder, cure="-o save_dir=..."):
    """A block in which this process alone has a folder, which is made if there is none.

    The lock is the system's, and goes with the process, however that ends; the file stays, or two might hold it. Only
    where the block fails with nothing else in a folder that was made for it, both go.
    Processes that are forked in the block do not hold it, and neither does what is in the file, which only names the
    owner. Where the file system knows no locks, that is told, and the block goes on.

    Args:
        folder: path.
        cure: what gives a command another folder.

    Raises:
        UserError: another process has it, or it cannot be made or written to.
    """
    path, made = os.path.join(folder, FILE), lacking(folder)
    try:
        os.makedirs(folder, exist_ok=True)
        handle = _open(path)
    except OSError as error:
        raise UserError(
            f"the output folder {folder} is not writable: {error}. Choose another with {cure}"
        ) from error
    _held.add(handle)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UserError(f"{path}: is no file, and cannot be a lock; remove it")
        _lock(handle, folder, cure)
        if not os.path.lexists(path) or not os.path.samestat(os.fstat(handle), os.lstat(path)):
            raise UserError(f"another run in {folder} was refused just now and its folder went with it; start again")
        try:
            yield
        except BaseException:
            _clear(path, made)
            raise
    finally:
        _held.discard(handle)
        os.close(handle)


def is_held(folder):
    """Whether some process has a folder alone; False where that cannot be known."""
    try:
        handle = os.open(os.path.join(folder, FILE), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _open(path):
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _clear(path, made):
    """Leave nothing of a run that was refused before it wrote anything: the lock, and folders that were made for it."""
    with contextlib.suppress(OSError):
        if made and os.listdir(os.path.dirname(path)) == [FILE]:
            os.unlink(path)
            for folder in made:
                os.rmdir(folder)


def _lock(handle, folder, cure):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 200).decode("utf-8", "replace")
        owner = f" ({owner})" if owner.isprintable() and owner else ""
        raise UserError(
            f"another run{owner} is writing into the output folder {folder}: wait until it has ended, or give this one "
            f"another folder with {cure}"
        ) from None
    except OSError as error:
        logger().warning("%s: this file system knows no locks (%s): let no second run write here", folder, error)
        return
    with contextlib.suppress(OSError):  # on a full disk it has no name
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _let_go():
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
