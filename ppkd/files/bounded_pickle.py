"""An unpickler that takes no more memory or time than a file's bytes allow; what it may name is others' business."""

import io
import pickle
import struct

from ppkd.errors import UserError

# Small files may unfold to this many bytes; a tuple, all tuples in it counted, has no more parts.
_LITTLE, _MOST_PARTS = 1 << 20, 100_000


class Refused(UserError):
    """A file asks for what tensors do not need."""


class Unpickler(pickle._Unpickler):
    """Python's own unpickler, in Python: the one in C makes a table as long as the largest number that a file puts into
    it, so that a few bytes can fill the machine's memory. Tensors are few and large, so it is no slower.

    No size that a file states is believed: what it takes is bounded by the bytes that are there.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, **options):
        lines = _Lines(file)
        super().__init__(lines, **options)
        # Bytes become a text, an array's content and an array: more than these come from one piece used over and over.
        self._left, self._parts = 8 * lines.size + _LITTLE, {}

    def load_bytearray8(self):
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_buffer(self):
        raise Refused("it holds a view of a buffer, which tensors do not need, so it is not opened")

    dispatch[pickle.NEXT_BUFFER[0]] = dispatch[pickle.READONLY_BUFFER[0]] = load_buffer

    def load_reduce(self):
        super().load_reduce()
        self._bound()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_build(self):
        super().load_build()
        self._bound()

    dispatch[pickle.BUILD[0]] = load_build

    def _bound(self):
        made = self.stack[-1]
        self._left -= getattr(made, "nbytes", None) or (8 * len(made) if isinstance(made, (tuple, dict)) else 0)
        self._left -= len(made) if isinstance(made, (bytes, str)) else 0
        if self._left < 0:
            raise Refused("it unfolds to many times its own size, as no tensors do, so it is not opened")
        self._bound_tuple(made)

    def _bound_tuple(self, made):
        """Tuples of the same tuples, and so on, take for ever as a key: their hash is anew at each use."""
        if isinstance(made, tuple):
            count = 1 + sum(self._parts.get(id(part), (1,))[0] for part in made)
            if count > _MOST_PARTS:
                raise Refused(f"it holds a tuple of more than {_MOST_PARTS} parts, which tensors do not need")
            self._parts[id(made)] = count, made  # kept, so that no other gets its id


def _bounded(load):
    def load_tuple(self):
        load(self)
        self._bound_tuple(self.stack[-1])

    return load_tuple


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    Unpickler.dispatch[_code[0]] = _bounded(pickle._Unpickler.dispatch[_code[0]])


class _Lines:
    """What an unpickler reads from, without lines that the end of the file cuts off, or sizes beyond it.

    Attributes:
        size: bytes that there are.
    """

    def __init__(self, file):
        self._file, begin = file, file.tell()
        self._end = file.seek(0, io.SEEK_END)
        self.size = self._end - begin
        file.seek(begin)

    def read(self, size):
        # Python would first make room for as much as is asked for.
        if size > self._end - self._file.tell():
            raise EOFError("it ends early")
        return self._file.read(size)

    def readline(self):
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends early")
        return line
