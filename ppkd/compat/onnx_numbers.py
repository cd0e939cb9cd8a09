"""Paddle 3.3 writes numbers into its graphs as float64 that paddle2onnx 2.1 reads as float32."""

import json


def narrow_numbers(path):
    """Give a ``model.json`` the types of numbers that paddle2onnx expects. For conversion only: Paddle refuses it then.

    Without it no graph with an interpolation (every feature pyramid) is converted: "the 0th elementwise MUST be
    ir::FloatAttribute"; and leaky ReLUs are read wrongly.

    Needed for: Paddle 3.3 with paddle2onnx 2.1.0.
    """
    with open(path, encoding="utf-8") as file:
        graph = json.load(file)
    _narrow(graph["program"], False)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(graph, file)


# Lists of numbers everywhere (``scale`` of an interpolation) and single ones of these operators; not of others, as
# ``full``, whose value has been float64 always.
_OPERATORS = ("1.leaky_relu",)
_WIDE, _NARROW, _LIST = "0.a_f64", "0.a_f32", "0.a_array"


def _narrow(node, inside):
    if isinstance(node, list):
        for item in node:
            _narrow(item, inside)
    elif isinstance(node, dict):
        kind = node.get("#")
        if kind == _WIDE and inside:
            node["#"] = _NARROW
        inside = kind == _LIST or (kind in _OPERATORS if "A" in node else inside)
        for item in node.values():
            _narrow(item, inside)
