"""Records: arrays by name in one sealed file, which is read whole as it was written, or not at all.

A file is a digest, a stamp, and the arrays as a safetensors file has them. The digest is of all that follows it, keyed
with the seal of the collection that the record is of: a cut file, a flipped bit and a record of another collection all
fail by it.
"""

import contextlib
import hashlib
import mmap
import os

import numpy as np
from safetensors.numpy import load, save

from ppkd.files.regular import open_file
from ppkd.files.write import write_bytes

_DIGEST, STAMP = 32, 16
_HEAD = _DIGEST + STAMP


def digest_of(*parts, size=STAMP):
    """A digest of byte strings (and all that has a buffer), `size` bytes."""
    digest = hashlib.blake2b(digest_size=size)
    for part in parts:
        digest.update(part)
    return digest.digest()


def write_record(path, arrays, seal, stamp):
    """Write a record; the file is there whole or as it was.

    Args:
        path: its folder is made if there is none.
        arrays: by name.
        seal: bytes, at most 64, of the collection.
        stamp: `STAMP` bytes that say what the record is of.

    Raises:
        UserError: the disk is full, or the folder not writable.
    """
    content = stamp + save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    write_bytes(path, _seal(content, seal) + content)


def read_record(path, seal):
    """Read what `write_record` wrote.

    Returns:
        ``(stamp, arrays by name)``, or None if there is no such file, or none that is whole and of this collection.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open_file(path, "rb") as file:
        if os.fstat(file.fileno()).st_size <= _HEAD:
            return None
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if content[:_DIGEST] == _seal(content[_DIGEST:], seal):
            return bytes(content[_DIGEST:_HEAD]), load(bytes(content[_HEAD:]))
    return None


def _seal(content, seal):
    return hashlib.blake2b(content, digest_size=_DIGEST, key=seal).digest()
