"""Reads the pickles that ``paddle.save`` writes, and nothing else that a pickle can do.

A pickle is a program: it names functions, calls them and sets what it likes on what they return. ``paddle.load`` runs
whatever a file says. Here every name that a file may use stands for a function of this module, which makes a plain
value of checked arguments. No function, class or module of Python or NumPy itself is ever within a file's reach, so
there is nothing to call with other arguments and nothing to change.
"""

import io
import math
import re

import numpy as np

from ppkd.errors import UserError
from ppkd.files.bounded_pickle import Refused, Unpickler
from ppkd.files.in_place import opened_in_place_of
from ppkd.files.regular import open_file

_NUMBERS = re.compile(r"[<>|=]?([biufc])(\d{1,2})")
# Keys that paddle.save adds to a state: names of tensors, and how those of more than a gibibyte were cut.
_NAMES, _CUT = "StructuredToParameterName@@", "UnpackBigParamInfor@@"


def load(file, tensor=None):
    """Read what ``paddle.save`` wrote.

    Args:
        file: path.
        tensor: called with name and array for each tensor, to make what stands in its place; None for the array. In
            most files tensors have names and other arrays are just that; in one without names all arrays are tensors,
            of the name None.

    Returns:
        What was saved: dicts, lists, tuples, numbers, texts and NumPy arrays (numbers and truth values only).

    Raises:
        Refused: it asks for a function or class, or a kind of array, that ``paddle.save`` has no use for, which the
            message names.
        UserError: it is damaged, no pickle, or goes in a circle.
        OSError: it cannot be read.
    """
    with open_file(file, "rb") as stream:
        return loads(stream, file, tensor)


def loads(stream, name="", tensor=None):
    """`load` from an open binary stream (or bytes); `name` is for messages."""
    stream = io.BytesIO(stream) if isinstance(stream, bytes) else stream
    try:
        content = _Unpickler(stream, encoding="latin1").load()
        plain = _Plain(tensor or _its_array)
        content = plain.of(_joined(content))
        if tensor is not None and not plain.named:
            content = _Plain(tensor, unnamed=True).of(content)
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        told = opened_in_place_of("weights", stream) or f", or a damaged one ({reason[:200]})"
        raise UserError(f"{name}: not a Paddle file{told}") from error
    return content


class _Unpickler(Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _KNOWN:
            raise Refused(f"it calls {module}.{name}, which tensors do not need, so it is not opened")
        return _KNOWN[module, name]


class Sealed:
    """What a file is given and cannot change: a pickle may set attributes of all it holds, after that was checked."""

    __slots__ = ()
    what = "an object"

    def __setstate__(self, state):
        raise Refused(f"it changes {self.what}, which tensors do not need, so it is not opened")


class Call(Sealed):
    """What a file gets for a name: it can be called, and neither be looked into nor changed."""

    __slots__ = ("_function",)
    what = "a function"

    def __init__(self, function):
        self._function = function

    def __call__(self, *args):
        return self._function(*args)


class _Array(np.ndarray):
    """An array that takes the state that a file gives it only if that is numbers, and as many as its shape says."""

    def __setstate__(self, state):
        _version, shape, dtype, by_column, raw = state
        if not isinstance(dtype, _Type):
            raise ValueError("an array without a type")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # written by Python 2
        if not isinstance(raw, bytes) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise ValueError("an array without a shape or numbers")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.made.itemsize != len(raw):
            raise ValueError(f"an array of shape {shape} with {len(raw)} bytes")
        super().__setstate__((1, shape, dtype.made, bool(by_column), raw))


class _Type:
    """The type of an array's numbers, as NumPy pickles it: a code and, as state, an order of bytes."""

    __slots__ = ("made",)

    def __init__(self, code):
        match = _NUMBERS.fullmatch(code) if isinstance(code, str) else None
        if match is None:
            raise Refused(f"it holds numpy.dtype {str(code)[:40]!r}, and tensors hold numbers, so it is not opened")
        self.made = np.dtype(code)

    def __setstate__(self, state):
        # All else of the state is of types that are none of numbers. NumPy would believe flags that make it take
        # bytes of the file for addresses.
        order, rest = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest):
            raise Refused("it holds a numpy.dtype with parts, and tensors hold numbers, so it is not opened")
        self.made = self.made.newbyteorder(order)


class Mapping(dict):
    """An ordered dict whose attributes, if the file gives it any, are left out."""

    def __setstate__(self, state):
        pass


def _dtype(code, align=False, copy=False):
    return _Type(code)


def _reconstruct(subtype, shape, code):
    if subtype is not _NDARRAY:
        raise Refused("it holds an array of another class than numpy.ndarray, so it is not opened")
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(dtype, raw):
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    (value,) = np.frombuffer(raw, dtype.made)
    return value


def _encode(text, encoding):
    if encoding != "latin1":
        raise Refused(f"it calls _codecs.encode with {encoding!r}, so it is not opened")
    return text.encode("latin1")


def _data(code, names=None, *others):
    """What Paddle writes for a tensor of a static graph: a call of ``eval`` for the array that it gives along."""
    alone = type(names) is dict and list(names) == ["data"] and not others
    if code != "data" or not alone or not isinstance(names["data"], _Array):
        raise Refused("it calls builtins.eval, which tensors do not need, so it is not opened")
    return names["data"]


def _no_bytes(*args):
    """How the empty text of bytes was written before protocol 3."""
    if args:
        raise Refused("it calls builtins.bytes, which tensors do not need, so it is not opened")
    return b""


def _no_call(*args):
    raise Refused("it calls numpy.ndarray, which tensors do not need, so it is not opened")


_NDARRAY = Call(_no_call)
_KNOWN = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Call(_dtype),
    ("collections", "OrderedDict"): Call(Mapping),
    ("_codecs", "encode"): Call(_encode),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _KNOWN[_module, "_reconstruct"] = Call(_reconstruct)
    _KNOWN[_module, "scalar"] = Call(_scalar)
for _module in ("builtins", "__builtin__"):
    _KNOWN[_module, "tuple"] = Call(tuple)
    _KNOWN[_module, "bytes"] = Call(_no_bytes)
    _KNOWN[_module, "eval"] = Call(_data)


def _joined(content):
    """Put the pieces of large tensors together again, and forget the table of names, which is Paddle's own."""
    if not isinstance(content, dict):
        return content
    content = dict(content)
    for key, cut in (content.pop(_CUT, None) or {}).items():
        content[key] = np.concatenate([content.pop(part) for part in cut["slices"]]).reshape(cut["OriginShape"])
    content.pop(_NAMES, None)
    return content


class _Plain:
    """Makes plain containers and arrays of what was read, each value once however often it stands there.

    Attributes:
        named: whether a tensor with a name was met.
    """

    def __init__(self, tensor, unnamed=False):
        self._tensor, self._unnamed, self.named = tensor, unnamed, False
        self._made, self._open = {}, set()

    def of(self, value):
        if isinstance(value, (Call, _Type)):
            raise Refused("it holds a function or type itself, which tensors do not need, so it is not opened")
        if isinstance(value, np.ndarray) and not self._unnamed:
            return value.view(np.ndarray)
        if not isinstance(value, (dict, list, tuple, set, frozenset, np.ndarray)):
            return value
        key = id(value)
        if key in self._open:
            raise ValueError("a container that holds itself")
        if key not in self._made:
            self._open.add(key)
            self._made[key] = self._container(value)
            self._open.discard(key)
        return self._made[key]

    def _container(self, value):
        if isinstance(value, np.ndarray):
            return self._tensor(None, value.view(np.ndarray))
        if isinstance(value, dict):
            return {self._key(k): self.of(v) for k, v in value.items()}
        if isinstance(value, tuple) and [type(part) for part in value] == [str, _Array]:
            self.named = True
            return self._tensor(value[0], value[1].view(np.ndarray))
        return type(value)(self.of(v) for v in value)

    def _key(self, key):
        if not isinstance(key, (str, int, float, bool, bytes, type(None), tuple)):
            raise ValueError(f"a key that is a {type(key).__name__}")
        return self.of(key)


def _its_array(name, array):
    return array
