"""Paddle 3.3 writes numbers into its graphs as float64 that paddle2onnx 2.1 reads as float32."""

import json


def narrow_numbers(path):
    """Give a ``model.json`` the types of numbers that paddle2onnx expects. For conversion only: Paddle refuses it then.

    Without it no graph with an interpolation (every feature pyramid) is converted: "the 0th elementwise MUST be
    ir::FloatAttribute"; and the epsilon of group normalisation is misread without a message.

    Needed for: Paddle 3.3 with paddle2onnx 2.1.0.
    """
    with open(path, encoding="utf-8") as file:
        graph = json.load(file)
    _narrow(graph["program"], False)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(graph, file)


# Numbers of these have been float64 always.
_WIDE_ALREADY = ("1.full", "1.assign_value")
_WIDE, _NARROW = "0.a_f64", "0.a_f32"


def _narrow(node, inside):
    if isinstance(node, list):
        for item in node:
            _narrow(item, inside)
    elif isinstance(node, dict):
        if "A" in node:  # an operator with its attributes
            inside = not str(node["#"]).startswith(_WIDE_ALREADY)
        elif node.get("#") == _WIDE and inside:
            node["#"] = _NARROW
        for item in node.values():
            _narrow(item, inside)
