"""A detector's modules with what they return, and the names that terms can take as sources."""

from collections import defaultdict

from paddle import nn

from ppkd.detectors import detector_for
from ppkd.detectors.base import PROBE_SIZE
from ppkd.errors import UserError
from ppkd.terminal.table import text_table


def layers_text(model, depth=2):
    """The tree of modules and the table of named sources, no line break at the end.

    Args:
        model: ppdet model; left as it was.
        depth: levels of modules in the tree, lists not counted.
    """
    detector = detector_for(model)
    with detector.looked_at_once(whole=True):
        tree = [("module", "class", "output", "stride"), *module_rows(detector, depth)]
        named = [("source", "module", "channels", "place"), *source_rows(detector)]
    size = f"{PROBE_SIZE} x {PROBE_SIZE}"
    return "\n".join(
        [
            f"{type(model).__name__}: outputs (channels x height x width) for one image of {size} pixels",
            "",
            _table(tree),
            "",
            "A module above that returns a tensor is a source by its name; one that returns several is name[i] or",
            "name[*], and one that is called several times gives what its first call does. '-' returns no tensor, or",
            "is not run before post-processing."
            + ("" if detector.runs_head else " How this head is run is not known here: it is not run either.")
            + " Named sources:",
            "",
            _table(named),
        ]
    )


def module_rows(detector, depth):
    """One row a module that is at most `depth` levels deep.

    Args:
        detector: `detectors.Detector`.
        depth: levels.

    Returns:
        List of ``(indented path, class, shapes, strides)``; what is deeper is counted in the class column.
    """
    outputs = defaultdict(list, detector.dry_run(detector.paths()).outputs)
    rows = []
    for path, level, layer in _walk(detector.model, depth, outputs):
        calls = outputs[path]
        shapes = [list(x.shape) for x in _tensors(calls)]
        below = len(layer.sublayers()) if level == depth else 0
        kind = type(layer).__name__ + (f" (+{below})" if below else "")
        times = f"{len(calls)} calls: " if len(calls) > 1 else ""
        rows.append(("  " * (level - 1) + path, kind, times + _join(map(_shape, shapes)), _join(map(_stride, shapes))))
    return rows


def source_rows(detector):
    """One row a level of every named source: ``(source, module, channels, place)``."""
    rows = []
    for name in detector.aliases():
        try:
            levels = detector.levels(f"{name}[*]")
        except UserError:
            continue  # a layer that this head is built without
        for level in levels:
            place = f"stride {level.stride:g}" if level.stride else "x".join(map(str, level.cells or ())) or "-"
            rows.append((level.source, level.tap.path, str(level.channels), place))
    return rows


def _walk(layer, depth, outputs, prefix="", level=1):
    """``(path, level, layer)`` of modules; those that only hold others are left out and do not count."""
    for name, child in layer.named_children():
        path = f"{prefix}{name}"
        holds = isinstance(child, (nn.LayerList, nn.Sequential)) and not outputs[path]
        if not holds:
            yield path, level, child
        if holds or level < depth:
            yield from _walk(child, depth, outputs, f"{path}.", level + (not holds))


def _tensors(value):
    """All tensors of nested lists, in order."""
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if hasattr(value, "shape") and len(value.shape) else []


def _shape(shape):
    return "x".join(map(str, shape[1:] if len(shape) > 1 else shape))


def _stride(shape):
    is_map = len(shape) == 4 and 0 < shape[2] == shape[3] <= PROBE_SIZE
    return f"{PROBE_SIZE // shape[2]}" if is_map else "-"


def _join(texts):
    return ", ".join(texts) or "-"


def _table(rows):
    """Columns to the left: names and lists read badly to the right."""
    first, *rest = zip(*rows, strict=True)
    widths = [max(map(len, column)) for column in rest]
    return text_table([(a, *(cell.ljust(w) for cell, w in zip(b, widths))) for a, *b in zip(first, *rest)])
