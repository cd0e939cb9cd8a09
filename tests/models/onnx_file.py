"""Writes small ONNX files byte by byte, so that no test needs another package: onnx.proto of github.com/onnx/onnx."""

import numpy as np

_FLOAT, _INT64 = 1, 7


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


def _value(name, shape, kind=_FLOAT):
    dims = [_message(f1=side) if isinstance(side, int) else _message(f2=side) for side in shape]
    tensor = _message(f1=kind, f2=_message(f1=dims))
    return _message(f1=name, f2=_message(f1=tensor))


def tensor(name, array, dims=None, external=None):
    """A tensor of float32 or int64; other `dims` than its own, or a path outside, make it a lie."""
    array = np.asarray(array)
    kind, array = (_INT64, array.astype("<i8")) if array.dtype.kind == "i" else (_FLOAT, array.astype("<f4"))
    dims = list(array.shape) if dims is None else [side % (1 << 64) for side in dims]
    if external is None:
        return _message(f1=dims, f2=kind, f8=name, f9=array.tobytes())
    return _message(f1=dims, f2=kind, f8=name, f13=_message(f1="location", f2=external), f14=1)


def node(kind, given, made, domain="", **attributes):
    """A node; attributes are numbers, lists of whole numbers, text, tensors (bytes), or graphs in a list of one."""
    return _message(f1=given, f2=made, f4=kind, f5=[_attribute(*each) for each in attributes.items()], f7=domain)


def _attribute(name, value):
    if isinstance(value, bytes):
        return _message(f1=name, f5=value, f20=4)
    if isinstance(value, str):
        return _message(f1=name, f4=value, f20=3)
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return _message(f1=name, f6=value, f20=5)
    return _message(f1=name, f8=value, f20=7) if isinstance(value, list) else _message(f1=name, f3=value, f20=2)


def graph(nodes, outputs, initial=(), inputs=()):
    """A graph: nodes, `(name, shape)` of outputs and inputs (or `(name, shape, 7)` of whole numbers), tensors."""
    inputs, outputs = ([_value(*each) for each in some] for some in (inputs, outputs))
    return _message(f1=nodes, f2="g", f5=list(initial), f11=inputs, f12=outputs)


def function(name, domain, given, made, nodes):
    """A function that the file brings along."""
    opset = [_message(f1="", f2=13), _message(f1=domain, f2=1)]
    return _message(f1=name, f4=given, f5=made, f7=nodes, f9=opset, f10=domain)


def model(graph, about=(), functions=(), domains=()):
    """A file: `about` are its metadata, name -> text, `domains` those of operators beside ONNX's."""
    opset = [_message(f1="", f2=13), *(_message(f1=each, f2=1) for each in domains)]
    about = [_message(f1=key, f2=value) for key, value in dict(about).items()]
    return _message(f1=8, f7=graph, f8=opset, f14=about, f25=list(functions))


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
        nodes.append(node("Conv", [before, f"w{i}"], [name], kernel_shape=[2, 2], strides=[2, 2]))
        before = name
    nodes += [node("Identity", [name], [f"{name}_out"]) for name in more_inputs]
    outputs = [(name, [image[0], len(w), "y", "x"]) for name, w in zip(names, weights)]
    outputs += [(f"{name}_out", [image[0], 2]) for name in more_inputs]
    inputs = [("image", image), *((name, [image[0], 2]) for name in more_inputs)]
    return model(graph(nodes, outputs, [tensor(f"w{i}", weight) for i, weight in enumerate(weights)], inputs))


def detector(boxes, scores, labels, image=(1, 3, "h", "w"), about=()):
    """A detector that finds the same on every image: outputs boxes (1, M, 4), scores (1, M) and labels (1, M)."""
    values = {"boxes": np.float32(boxes)[None], "scores": np.float32(scores)[None], "labels": np.int64(labels)[None]}
    nodes = [node("Identity", [f"its_{name}"], [name]) for name in values]
    outputs = [(name, value.shape, 7 if name == "labels" else 1) for name, value in values.items()]
    initial = [tensor(f"its_{name}", value) for name, value in values.items()]
    return model(graph(nodes, outputs, initial, [("image", image)]), about)
