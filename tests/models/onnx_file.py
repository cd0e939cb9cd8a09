"""Writes small ONNX files byte by byte, so that no test needs another package: onnx.proto of github.com/onnx/onnx."""

import numpy as np

_FLOAT = 1


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number, value):
    """A field of a message: a number, text, bytes, or several of these."""
    if isinstance(value, (list, tuple)):
        return b"".join(_field(number, each) for each in value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _message(**fields):
    return b"".join(_field(int(name[1:]), value) for name, value in fields.items())


def _value(name, shape):
    dims = [_message(f1=side) if isinstance(side, int) else _message(f2=side) for side in shape]
    tensor = _message(f1=_FLOAT, f2=_message(f1=dims))
    return _message(f1=name, f2=_message(f1=tensor))


def _tensor(name, array):
    array = np.ascontiguousarray(array, "<f4")
    return _message(f1=list(array.shape), f2=_FLOAT, f8=name, f9=array.tobytes())


def convolutions(weights, image=("n", 3, "h", "w"), names=None, more_inputs=()):
    """A model of stride-2 convolutions one after another, each one's output an output of the model.

    Args:
        weights: list of (out, in, 2, 2) arrays.
        image: shape of the input; text for any size.
        names: of the outputs.
        more_inputs: names of further inputs, (n, 2), which are handed on as outputs of their own.

    Returns:
        bytes.
    """
    names = names or [f"level{i}" for i in range(len(weights))]
    nodes, before = [], "image"
    for i, name in enumerate(names):
        attributes = [_message(f1=key, f8=[2, 2], f20=7) for key in ("kernel_shape", "strides")]
        nodes.append(_message(f1=[before, f"w{i}"], f2=name, f3=f"conv{i}", f4="Conv", f5=attributes))
        before = name
    nodes += [_message(f1=name, f2=f"{name}_out", f4="Identity") for name in more_inputs]
    outputs = [_value(name, [image[0], len(w), "y", "x"]) for name, w in zip(names, weights)]
    outputs += [_value(f"{name}_out", [image[0], 2]) for name in more_inputs]
    inputs = [_value("image", image), *(_value(name, [image[0], 2]) for name in more_inputs)]
    initial = [_tensor(f"w{i}", weight) for i, weight in enumerate(weights)]
    graph = _message(f1=nodes, f2="g", f5=initial, f11=inputs, f12=outputs)
    return _message(f1=8, f7=graph, f8=_message(f1="", f2=13))
