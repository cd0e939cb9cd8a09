"""Finds the levels of a detector that a source names, by dry forwards."""

import re

from ppkd.detectors.recorders import find_module
from ppkd.detectors.taps import Level, Tap
from ppkd.detectors.towers import SUPPORTED
from ppkd.errors import UserError, nearest

_SOURCE = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*?)(\[(?P<index>[0-9]{1,6}|\*|s[0-9]{1,6}(, *s[0-9]{1,6})*)\])?\Z", re.ASCII
)
_OF_SETS = ("decoder.cls", "decoder.box", "decoder.query", "decoder.reference")
_LAYER = re.compile(r"^(?P<tower>head\.\w+_tower)\.(?P<layer>\w+)$")


def levels_of(detector, source):
    """What `source` names in a `detectors.Detector`: see `Detector.levels`."""
    match = _SOURCE.match(source)
    if match is None:
        raise UserError(f"{source!r} is not a source: write neck[*], neck[0], neck[s8] or a module path")
    name, index = match["name"], match["index"]
    alias = detector.aliases().get(name)
    if alias is None and find_or_none(detector.model, name) is None:
        raise UserError(_unknown(detector, source, name))
    if index == "*" or (index is None and alias is not None):
        return _all_levels(detector, name, alias)
    if index and index.startswith("s"):
        return _of_strides(detector, source, [int(stride.strip(" s")) for stride in index.split(",")])
    tap = alias(int(index)) if alias else Tap(name, item=int(index or 0))
    if tap is None or find_or_none(detector.model, tap.path) is None:
        count = count_of(detector, alias)
        raise UserError(f"{type(detector.model).__name__} has no {source!r}: {name} has {count} levels")
    return [_probe(detector, source, [tap])[0]]


def _unknown(detector, source, name):
    """What to tell a user who asks for a source that does not exist."""
    begin = f"{type(detector.model).__name__} has no source {source!r}"
    layers = [key for key in detector.aliases() if _LAYER.match(key)]
    if _LAYER.match(name):
        exist = f"layers of towers: {', '.join(layers)}" if layers else f"known are those of {', '.join(SUPPORTED)}"
        return f"{begin}; {exist}"
    if name == "found":
        return f"{begin}: boxes are a source of an ONNX file with `detections` alone (docs/any_teacher.md)"
    if name in _OF_SETS and not any(key in _OF_SETS for key in detector.aliases()):
        begin += ", for DETR and its kin alone predict sets: neck[*] compares features of any two families"
    known = [*detector.aliases(), *(path for path, _ in detector.model.named_sublayers())]
    named = [f"{key}[i]" for key in detector.aliases() if key not in layers]
    named += [f"{tower}.K[i]" for tower in dict.fromkeys(_LAYER.match(key)["tower"] for key in layers)]
    return f"{begin}{nearest(name, known)}; named sources: {', '.join(named)}"


def _of_strides(detector, source, strides):
    name = source.partition("[")[0]
    levels = _all_levels(detector, name, detector.aliases().get(name))
    there = [level.stride for level in levels if level.stride]
    if missing := [f"s{stride}" for stride in strides if stride not in there]:
        exist = ", ".join(f"s{stride}" for stride in there) or "none"
        raise UserError(f"{source!r}: {name} has no level {', '.join(missing)}; its strides: {exist}")
    return [level for level in levels if level.stride in strides]


def _all_levels(detector, name, alias):
    make = alias or (lambda i: Tap(name, item=i))
    count = count_of(detector, make)
    return _probe(detector, name, [make(i) for i in range(count)])


def count_of(detector, make):
    """How many levels an alias has: outputs of one call, calls or parts of one, or modules in a list."""
    first, second = make(0), make(1)
    if second is None or first.path != second.path or (first.call, first.item) == (second.call, second.item):
        count = 0
        while (tap := make(count)) is not None and find_or_none(detector.model, tap.path) is not None:
            count += 1
        return count
    calls = detector.dry_run([first.path]).outputs[first.path]
    if first.call != second.call:
        return len(calls)
    return len(calls[0]) if isinstance(calls[0], (list, tuple)) else 1


def _probe(detector, name, taps):
    recorder = detector.dry_run([path for tap in taps for path in tap.paths])
    levels = []
    for i, tap in enumerate(taps):
        shape = getattr(recorder.take(tap), "shape", None)
        if shape is None:
            raise UserError(f"{name}: {tap.path} returns no tensor, nor several; take one of the modules in it")
        is_map = len(shape) == 4 and shape[2] > 0
        stride = detector.probe_size // shape[2] if is_map and not tap.grid else None
        cells = (int(shape[2]), int(shape[3])) if is_map and tap.grid else None
        source = name if len(taps) == 1 and "[" in name else f"{name}[{i}]"
        tokens = int(shape[1]) if len(shape) == 3 else None
        channels = int(shape[1 if tokens is None else 2]) if len(shape) > 1 else 0
        levels.append(Level(source, tap, channels, stride, cells, tokens))
    return levels


def find_or_none(model, path):
    """The sub-layer at `path`, or None."""
    try:
        return find_module(model, path)
    except UserError:
        return None
