"""What an ONNX file says of itself, read before anything opens it: onnx.proto of github.com/onnx/onnx.

Protocol buffers are read by hand, and only as far as it takes to find nodes and tensors: their content is skipped.
"""

import mmap
from itertools import islice

from ppkd.errors import UserError
from ppkd.files.regular import open_file

# ONNX's own operators and those that ONNX Runtime brings along.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# Field of a message -> what the message in it is.
_WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_OPERATOR, _DOMAIN = 4, 7
# Of ONNX Runtime's operators that which holds, or leads to, something compiled for a device.
_COMPILED = "EPContext"
_DIMS, _TENSOR_NAME, _EXTERNAL, _LOCATION = 1, 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NO_DIMENSION = 1 << 63  # what is no length; protocol buffers write negative numbers so
# Inputs among which the images are looked for.
_INPUTS = 100


def check_contents(path):
    """Refuse a file that leads to other files, needs or brings operators of its own, or lies about tensors.

    Raises:
        UserError: one of these, or it is no ONNX file.
        OSError: it cannot be read.
    """
    with open_file(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise UserError("an empty file") from None
        with data:
            _check(data)


def _check(data):
    used, graphs = set(), 0
    pending = [("model", 0, len(data))]
    while pending:
        kind, begin, end = pending.pop()
        if kind == "function":
            raise UserError(
                "it brings functions of its own, which may unfold to any number of operators: write them out when you "
                "export it (onnx.inliner.inline_local_functions does)"
            )
        names, dims, tensor = {}, [], None
        for field, wire, value in _fields(data, begin, end):
            inner = _WITHIN.get(kind, {}).get(field)
            if inner and wire == _BYTES:
                pending.append((inner, *value))
                graphs += kind == "model" and inner == "graph"
            elif kind == "node" and field in (_OPERATOR, _DOMAIN) and wire == _BYTES:
                names[field] = _text(data, value)
            elif kind == "tensor" and field == _DIMS:
                dims += [value] if wire == _VARINT else [n for n, _ in _varints(data, *value)]
            elif kind == "tensor" and field == _TENSOR_NAME and wire == _BYTES:
                tensor = _text(data, value)
            elif kind == "tensor" and (field == _EXTERNAL or (field == _LOCATION and value == 1)):
                raise UserError("some of its tensors lie in other files: save it as one file, with its weights in it")
        if kind == "node":
            used.add((names.get(_DOMAIN, ""), names.get(_OPERATOR, "")))
        if kind == "tensor":
            _check_size(tensor, dims, end - begin)
    if not graphs:
        raise UserError("no model of ONNX: there is no graph in it")
    strange = sorted(
        f"{domain}::{name}" for domain, name in used if domain not in _DOMAINS or (domain and name == _COMPILED)
    )
    if strange:
        more = ", ..." if len(strange) > 4 else ""
        raise UserError(f"it has operators that are none of ONNX's: {', '.join(strange[:4])}{more}")


def image_size(path):
    """Height and width of the images that a file takes, None for any; None for a file that does not say it."""
    try:
        with open_file(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for given in islice(_inner(data, [(0, len(data))], 7, 11), _INPUTS):
                # A value's type, which is a tensor's, its shape, and its sides.
                sides = list(islice(_inner(data, [given], 2, 1, 2, 1), 5))
                if len(sides) == 4:
                    return tuple(_fixed(data, side) for side in sides[2:])
    except (UserError, OSError, ValueError):  # who opens it says what is wrong
        pass
    return None


def _fixed(data, side):
    """A side's length, None if it is not fixed."""
    length = None
    for field, wire, value in _fields(data, *side):
        if field == 1 and wire == _VARINT:
            length = value if 0 < value < _NO_DIMENSION else None
    return length


def _inner(data, messages, number, *path):
    """Where the messages at a path of fields lie, one after the other: there may be any number of them."""
    for place in messages:
        for field, wire, value in _fields(data, *place):
            if field == number and wire == _BYTES:
                if path:
                    yield from _inner(data, [value], *path)
                else:
                    yield value


def _check_size(name, dims, length):
    """Refuse a tensor of more elements than its bytes can hold, which are two a byte at most."""
    count = 1
    for dim in dims:
        count *= dim
    if any(dim >= _NO_DIMENSION for dim in dims) or count > 2 * length:
        raise UserError(f"its tensor {name or '(without a name)'} is stated as {dims}, in {length} bytes")


def _fields(data, begin, end):
    """``(number, wire type, value)`` of a message's fields; of bytes the value is where they begin and end."""
    at = begin
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire == _BYTES:
            length, at = _varint(data, at, end)
            value, at = (at, at + length), at + length
        elif wire in (_FIXED64, _FIXED32):
            value, at = None, at + (8 if wire == _FIXED64 else 4)
        else:
            raise UserError("no model of ONNX: it is no protocol buffer")
        if at > end:
            raise UserError("no model of ONNX, or only a part of one: it ends too early")
        yield tag >> 3, wire, value


def _varints(data, begin, end):
    while begin < end:
        value, begin = _varint(data, begin, end)
        yield value, begin


def _varint(data, at, end):
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise UserError("no model of ONNX, or only a part of one: it ends too early")


def _text(data, place):
    return data[place[0] : min(place[1], place[0] + 200)].decode("utf-8", "replace")
