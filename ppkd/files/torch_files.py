"""Reads the tensors of files that PyTorch's ``torch.save`` wrote, without PyTorch and without running code from them.

Such a file is a pickle with the tensors' bytes beside it: in a zip archive (since PyTorch 1.6), or before that one
after the other in a single file. A pickle names functions to call. Here a handful of names is known and rebuilt by
functions of this module; some that training tools leave behind are stood in for by an object that does nothing; any
other name is refused before anything is called.
"""

import io
import math
import struct
import zipfile

import numpy as np

from ppkd.errors import UserError
from ppkd.files.bounded_pickle import Unpickler
from ppkd.files.regular import open_file
from ppkd.files.unpickle import Call, Mapping, Sealed

_ZIP = b"PK\x03\x04"
# How a pickle of the former format begins: the number 0x1950a86a20f9469cfc6c in protocol 2.
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_TYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_MOST_AXES = 32  # NumPy's
# Left by mmengine's log and by NumPy in what stands beside the weights; of no use here.
_STOOD_IN_FOR = frozenset(
    [
        "mmengine.logging.history_buffer.HistoryBuffer", "__builtin__.getattr", "builtins.getattr", "_codecs.encode",
        "numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    ]
)  # fmt: skip


def is_torch_file(path):
    """Whether the file begins as ``torch.save`` writes it, in either format."""
    with open_file(path, "rb") as file:
        begin = file.read(len(_LEGACY))
    return begin.startswith(_ZIP) or begin == _LEGACY


def read_torch(path):
    """Read a file of ``torch.save``.

    Returns:
        What was saved: nested dicts and lists of plain values, with a `Tensor` for each tensor.

    Raises:
        UserError: the file is damaged, of another kind, or names something that tensors do not need.
    """
    try:
        with open_file(path, "rb") as file:
            content = file.read()
        return _Archive(content).load() if content.startswith(_ZIP) else _load_legacy(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a pickle that is damaged raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: not a file that PyTorch saved, or a damaged one ({reason})") from error


class Tensor(Sealed):
    """A tensor of a file, whose bytes are read when they are asked for.

    Attributes:
        shape: tuple of its sizes.
    """

    __slots__ = ("shape", "_storage", "_offset", "_strides")
    what = "a tensor"

    def __init__(self, storage, offset, shape, strides):
        self.shape = _counts(shape)
        self._storage, self._offset, self._strides = storage, *_counts([offset]), _counts(strides)
        self._check(storage.count)

    def _check(self, stored):
        """Beyond what is stored lies memory that is not the file's; one number, repeated, could fill all there is."""
        last = self._offset + sum((n - 1) * stride for n, stride in zip(self.shape, self._strides))
        count = math.prod(self.shape)
        if len(self._strides) != len(self.shape) or (count and not count <= stored > last):
            raise UserError(f"a tensor of shape {list(self.shape)} lies outside of its {stored} stored numbers")

    def numpy(self):
        """Its values, read-only; bfloat16 as float32."""
        values = self._storage.values()
        self._check(len(values))
        if not math.prod(self.shape):
            return np.zeros(self.shape, values.dtype)
        values = values[self._offset :]
        strides = [stride * values.itemsize for stride in self._strides]
        # No copy: a file may have any number of tensors in the same numbers.
        return np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False)


def _counts(values):
    if not isinstance(values, (tuple, list)) or not all(type(n) is int and n >= 0 for n in values):
        raise UserError(f"sizes of a tensor have to be whole numbers, found {str(values)[:80]}")
    if len(values) > _MOST_AXES:
        raise UserError(f"a tensor has at most {_MOST_AXES} axes, this one {len(values)}")
    return tuple(values)


class _Storage(Sealed):
    """The numbers that one or several tensors lie in."""

    __slots__ = ("count", "size", "_kind", "_read", "_order", "_values")
    what = "the numbers of tensors"

    def __init__(self, kind, count, read, order="<"):
        if kind not in _TYPES.values() or type(count) is not int or count < 0:
            raise UserError(f"{count!r} numbers of type {kind!r} are no storage of tensors")
        self.count, self._kind, self._read, self._order, self._values = count, kind, read, order, None
        self.size = count * (2 if kind == "bf16" else np.dtype(kind).itemsize)

    def values(self):
        if self._values is None:
            found = self._read(self.size)
            if len(found) < self.size:
                raise UserError(f"it ends early: {self.size} bytes of a tensor were expected, {len(found)} are there")
            short = self._kind == "bf16"
            values = np.frombuffer(found, self._order + ("u2" if short else self._kind), self.count)
            values = values.astype(values.dtype.newbyteorder("="))
            # The upper half of a float32.
            self._values = (values.astype("u4") << 16).view("f4") if short else values
        return self._values


class _Inert:
    """In place of an object that is not needed: takes whatever it is made with and given, and does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def _tensor(storage, offset, shape, strides, *_):
    if not isinstance(storage, _Storage):
        raise UserError("a tensor without numbers")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor, *_):
    return tensor


_KNOWN = {
    "collections.OrderedDict": Call(Mapping),
    "torch._utils._rebuild_tensor": Call(_tensor),
    "torch._utils._rebuild_tensor_v2": Call(_tensor),
    "torch._utils._rebuild_parameter": Call(_parameter),
}


class _Unpickler(Unpickler):
    """Unpickles plain values, and tensors whose storages `storage` makes of their persistent ids."""

    def __init__(self, file, storage):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if full in _STOOD_IN_FOR:
            return _Inert
        raise UserError(f"it calls {full}, which tensors do not need, so it is not opened")

    def persistent_load(self, pid):
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise UserError(f"it refers to {pid!r}, which is no storage of tensors")
        return self._storage(*pid[1:])


class _Archive:
    """A file of the zip format."""

    def __init__(self, content):
        self._zip = zipfile.ZipFile(io.BytesIO(content))
        names = self._zip.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise UserError("a TorchScript archive: a program with weights; needed is a checkpoint of torch.save")
        found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise UserError(f"a zip archive, but none of torch.save: no data.pkl in it, only {', '.join(names[:3])}")
        self._folder, self._storages = found[0].rpartition("/")[0], {}
        program = self._read("data.pkl")
        # Entries may lie over one another in the file, each as large as the whole.
        if sum(entry.file_size for entry in self._zip.infolist()) > len(content):
            raise UserError("its entries come to more bytes than the file has, as torch.save leaves none")
        order = f"{self._folder}/byteorder" in names and self._read("byteorder")
        self._order, self._program = ">" if order == b"big" else "<", program

    def load(self):
        return _Unpickler(io.BytesIO(self._program), self._storage).load()

    def _storage(self, kind, key, _, count, *__):
        if key not in self._storages:
            self._storages[key] = _Storage(kind, count, lambda size: self._read(f"data/{key}"), self._order)
        return self._storages[key]

    def _read(self, name):
        try:
            entry = self._zip.getinfo(f"{self._folder}/{name}")
        except KeyError:
            raise UserError(f"it lacks {self._folder}/{name}, which its tensors refer to") from None
        # torch.save never compresses; a few bytes could unfold to more than there is memory.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"its entry {entry.filename} is compressed, as torch.save leaves none")
        try:
            return self._zip.read(entry)
        # Of an entry that is cut off, said to be encrypted, or of an offset that cannot be.
        except (zipfile.BadZipFile, EOFError, RuntimeError, OSError, ValueError, struct.error) as error:
            raise UserError(f"its entry {entry.filename} is damaged: {type(error).__name__}: {error}") from None


def _load_legacy(content):
    """A file of the format before zip: five pickles, then each storage's number of elements and its bytes."""
    file, storages = io.BytesIO(content), {}

    def storage(kind, key, _, count, view=None):
        if view is not None:
            raise UserError("a storage that is part of another, as only PyTorch before 0.4 wrote them")
        if key not in storages:
            storages[key] = _Storage(kind, count, lambda size: _slice(content, starts[key], size))
        return storages[key]

    if _Unpickler(file, storage).load() != 0x1950A86A20F9469CFC6C or _Unpickler(file, storage).load() != 1001:
        raise UserError("a pickle, but not of a version of torch.save that is known")
    system = _Unpickler(file, storage).load()
    if not system.get("little_endian", True):
        raise UserError("written on a big-endian machine")
    tree, starts = _Unpickler(file, storage).load(), {}
    for key in _Unpickler(file, storage).load():
        (count,) = struct.unpack("<q", file.read(8))
        if key not in storages or count != storages[key].count:
            raise UserError(f"its storage {key} is not the one that its tensors refer to")
        starts[key] = file.tell()
        file.seek(storages[key].size, io.SEEK_CUR)
    return tree


def _slice(content, start, size):
    return content[start : start + size]
