"""Gives the outputs of an ONNX file names that mean something: paddle2onnx has those of Paddle's inner tensors.

The file is read as what it is, fields of Protocol Buffers (https://protobuf.dev/programming-guides/encoding), of which
four are looked at: that needs no library, and no other field is touched.
"""

from ppkd.files.write import write_bytes

# Numbers of fields in onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_GRAPH, _NODE, _OUTPUT, _NAME = 7, 1, 12, 1  # ModelProto.graph; GraphProto.node, .output; ValueInfoProto.name
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE = 1, 2, 4  # of NodeProto
_LENGTH = 2  # wire type of text, bytes and messages
_FIXED = {1: 8, 5: 4}

_BOXES, _MASKS = ("bbox", "bbox_num"), ("bbox_num", "cate_label", "cate_score", "segm")


def output_names(model, count):
    """What ppdet calls the outputs of a detector as it was exported.

    Args:
        model: the detector after `static.write_static`, which has set its switches.
        count: number of outputs of the graph.

    Returns:
        As many names, in the order of the graph; None where they are the network's maps, or of a kind unknown here.
    """
    if not getattr(model, "export_post_process", True):
        return None
    if not getattr(model, "export_nms", True):
        names = ("bbox", "scores")
    elif type(model).__name__ in ("SOLO", "SOLOv2"):
        names = _MASKS
    else:
        names = (*_BOXES, "mask") if hasattr(model, "mask_head") else _BOXES
    return names if len(names) == count else None


def name_outputs(path, model):
    """Rename the outputs of the ONNX file at `path` as `output_names` says.

    The graph gets an ``Identity`` for each, which runtimes fold away; so whatever else reads the inner tensor still
    finds it.
    """
    with open(path, "rb") as file:
        content = file.read()
    whole = list(_fields(content))
    graph = next(value for number, value, _ in whole if number == _GRAPH)
    parts = list(_fields(graph))
    names = output_names(model, sum(number == _OUTPUT for number, _, _ in parts))
    if names is None:
        return
    made, nodes, new = [], [], iter(names)
    for number, value, raw in parts:
        if number == _OUTPUT:
            name = next(new).encode()
            former = next(v for n, v, _ in _fields(value) if n == _NAME)
            others = b"".join(r for n, _, r in _fields(value) if n != _NAME)
            raw = _field(_OUTPUT, _field(_NAME, name) + others)
            node = _field(_NODE_INPUT, former) + _field(_NODE_OUTPUT, name) + _field(_NODE_TYPE, b"Identity")
            nodes.append(_field(_NODE, node))
        made.append(raw)
    graph = _field(_GRAPH, b"".join((*made, *nodes)))
    write_bytes(path, b"".join(graph if number == _GRAPH else raw for number, _, raw in whole))


def _fields(data):
    """``(number, value, all of its bytes)`` of each field; the value of a number is not decoded."""
    at, view = 0, memoryview(data)
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        kind, value_at = tag & 7, at
        if kind == _LENGTH:
            size, value_at = _varint(data, at)
            at = value_at + size
        elif kind == 0:
            _, at = _varint(data, at)
        else:
            at += _FIXED[kind]
        yield tag >> 3, bytes(view[value_at:at]), bytes(view[begin:at])


def _field(number, value):
    return _encoded(number << 3 | _LENGTH) + _encoded(len(value)) + value


def _varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _encoded(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
