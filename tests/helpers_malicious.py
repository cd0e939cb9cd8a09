"""Weight and config files that would run code, for every test that has to see them refused."""

import builtins
import io
import os
import pickle
import posixpath

import numpy as np


class Calls:
    """What a pickle calls a function for."""

    def __init__(self, function, *args):
        self._call = (function, args)

    def __reduce__(self):
        return self._call


def payloads(canary):
    """Name -> object whose pickle, when it is loaded without care, makes the file `canary`, or may harm otherwise."""
    python = f"open({str(canary)!r}, 'w').close()"
    system = Calls(os.system, f"touch {canary}")
    return {
        "os.system": system,
        "exec": Calls(exec, python),
        "eval": Calls(eval, f"__import__('os').system('touch {canary}')"),
        "open": Calls(open, str(canary), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "import": Calls(builtins.__import__, "antigravity"),
        "path": Calls(posixpath.join, "a", "b"),
        "in a list": [1, [2, (3, system)]],
        "in a dict": {"a": {"b": system}},
        "as a key": {Calls(eval, f"open({str(canary)!r}, 'w').name"): 1},
        "in an object array": np.array([system, 1], dtype=object),
        "object array": np.array([None, 1], dtype=object),
        "eval of data": Calls(eval, "data", {"data": system}),
        "eval with data": Calls(eval, python, {"data": np.ones(2)}),
        "pickle in pickle": Calls(pickle.loads, pickle.dumps(system)),
        "numpy.load": Calls(np.load, str(canary), None, True),
        "memory map": Calls(np.memmap, str(canary), "u1", "w+", 0, (4,)),
    }


def opcodes(canary):
    """Name -> pickle written by hand, of what no pickler writes."""
    os_system = b"cposix\nsystem\n"
    touch = _text(f"touch {canary}")
    return {
        "INST": b"(S'touch " + str(canary).encode() + b"'\niposix\nsystem\n.",
        "OBJ": b"(" + os_system + touch + b"o.",
        "NEWOBJ": b"\x80\x02" + b"csubprocess\nPopen\n" + touch + b"\x85\x81.",
        "STACK_GLOBAL": b"\x80\x04" + _text("posix") + _text("system") + b"\x93" + touch + b"\x85R.",
        "dotted": b"\x80\x04" + _text("numpy") + _text("ndarray.__class__.mro") + b"\x93.",
        "dotted out of a known name": b"\x80\x04" + _text("collections") + _text("OrderedDict.pop") + b"\x93.",
        "attributes of a known name": b"\x80\x02cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.",
        "slots of a known name": b"\x80\x02c_codecs\nencode\nN}" + _text("_function") + b"c_codecs\nencode\ns\x86b.",
        "the name itself": b"\x80\x02}X\x01\x00\x00\x00acnumpy\nndarray\ns.",
        "flags that make bytes addresses": _object_array_of_bytes(),
        "another class": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nmatrix\nK\x00\x85U\x01b\x87R.",
        "a type with fields": pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")]), protocol=2),
        "texts": pickle.dumps(np.array(["a", "b"]), protocol=2),
        "extension": b"\x80\x02\x82\x01.",
        "persistent id": b"Pabc\n.",
        "another encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
    }


def _text(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _object_array_of_bytes():
    """An array of objects whose type says that its pickle holds bytes: NumPy takes them for addresses."""
    array = io.BytesIO()
    pickler = pickle._Pickler(array, 2)
    pickler.save_reduce(np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"))
    # Its state: version, shape, a type O of no flags, order, eight bytes.
    pickler.write(b"(K\x01K\x01\x85")
    pickler.save_reduce(np.dtype, ("O", False, True))
    pickler.write(b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
    pickler.write(b"\x89U\x08\x41\x41\x41\x41\x41\x41\x00\x00tb.")
    return b"\x80\x02" + array.getvalue()


def weights(canary, array=None):
    """Name -> bytes of a weight file beside whose first tensor stands a payload."""
    array = np.ones(2, "float32") if array is None else array
    files = {name: pickle.dumps({"a": array, "b": payload}, 2) for name, payload in payloads(canary).items()}
    return files | opcodes(canary)
