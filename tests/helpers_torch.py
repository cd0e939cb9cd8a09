"""Files as ``torch.save`` writes them, in both of its formats, made without PyTorch."""

import io
import pickle
import struct
import zipfile

import numpy as np

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "b1": "BoolStorage"}


class Global:
    """Pickled as the function or class ``module.name``, which does not have to exist."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a `Global` with arguments."""

    def __init__(self, module, name, *args):
        self.function, self.args = Global(module, name), args


class Storage:
    """The numbers of an array as PyTorch keeps them; tensors may share one."""

    def __init__(self, array, kind=None):
        self.bytes, self.count = array.tobytes(), array.size
        self.kind = kind or KINDS[array.dtype.str[1:]]
        self.key = None


def tensor(array, storage=None, offset=0, strides=None, shape=None):
    """A call that PyTorch pickles for a tensor; by default of all numbers of the array, in order."""
    array = np.asarray(array, order="C")
    strides = tuple(s // array.itemsize for s in array.strides) if strides is None else strides
    shape = tuple(array.shape) if shape is None else shape
    hooks = Call("collections", "OrderedDict")
    return Call("torch._utils", "_rebuild_tensor_v2", storage or Storage(array), offset, shape, strides, False, hooks)


class _Pickler(pickle._Pickler):
    """Writes `Global` and `Call` as such, and storages as persistent ids."""

    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.storages, self._legacy = [], legacy

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        if value not in self.storages:
            value.key = str(len(self.storages))
            self.storages.append(value)
        last = (None,) if self._legacy else ()
        return ("storage", Global("torch", value.kind), value.key, "cuda:0", value.count, *last)

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def save_torch(content, path, legacy=False, compression=zipfile.ZIP_STORED):
    """Write nested plain values with `tensor` in them; arrays among a dict's values are made tensors."""
    if isinstance(content, dict):
        content = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}
    file = io.BytesIO()
    pickler = _Pickler(file, legacy)
    pickler.dump(content)
    if not legacy:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", file.getvalue())
            archive.writestr("archive/byteorder", b"little")
            for storage in pickler.storages:
                archive.writestr(f"archive/data/{storage.key}", storage.bytes)
        return str(path)
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    with open(path, "wb") as out:
        for value in head:
            pickle.dump(value, out, protocol=2)
        out.write(file.getvalue())
        pickle.dump([storage.key for storage in pickler.storages], out, protocol=2)
        for storage in pickler.storages:
            out.write(struct.pack("<q", storage.count) + storage.bytes)
    return str(path)
