"""Messages between this process and the one that runs an ONNX file: plain values and arrays, never pickles."""

import json

import numpy as np

_LENGTH = 8


def send(stream, values, arrays=()):
    """Write plain values and arrays.

    Raises:
        OSError: nobody reads any more.
    """
    arrays = [np.ascontiguousarray(each) for each in arrays]
    head = json.dumps([values, [(each.dtype.str, each.shape) for each in arrays]]).encode()
    stream.write(len(head).to_bytes(_LENGTH, "little") + head)
    for each in arrays:
        stream.write(each.data.cast("B") if each.size else b"")
    stream.flush()


def receive(stream):
    """``(values, arrays)`` of the next message.

    Raises:
        EOFError: there will be none.
    """
    length = int.from_bytes(_read(stream, bytearray(_LENGTH)), "little")
    values, described = json.loads(bytes(_read(stream, bytearray(length))))
    arrays = [np.empty(shape, dtype) for dtype, shape in described]
    for each in arrays:
        if each.size:
            _read(stream, each.data.cast("B"))
    return values, arrays


def _read(stream, into):
    view, done = memoryview(into), 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise EOFError
        done += count
    return into
