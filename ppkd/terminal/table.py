"""Tables of results as plain text or markdown: accuracy beside cost, one row a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ppkd.terminal.text import printable

__all__ = ["COLUMNS", "markdown_table", "result_table", "text_table"]

# key of a row -> (heading, factor to what is shown, decimals)
COLUMNS = {
    "name": ("name", None, None),
    "AP": ("AP", 100, 1),
    "AP50": ("AP50", 100, 1),
    "APs": ("APs", 100, 1),
    "APm": ("APm", 100, 1),
    "APl": ("APl", 100, 1),
    "params_m": ("params (M)", 1, 2),
    "gflops": ("GFLOPs", 1, 2),
    "ms": ("ms/image", 1, 1),
}
_MISSING = "-"


def result_table(rows: Sequence[Mapping], keys: Sequence[str] = tuple(COLUMNS)) -> str:
    """Plain text with aligned columns, no line break at the end.

    Args:
        rows: one mapping a model, keys as in `COLUMNS`: `name`; `AP`, `AP50`, `APs`, `APm`, `APl`
            in 0..1 as COCOeval gives them, shown in percent; `params_m` in millions; `gflops` of
            one picture; `ms` a picture. What is absent, None, NaN, or -1 (COCOeval's "no such
            object") is shown as "-".
        keys: the columns, of `COLUMNS`.

    Raises:
        ValueError: an unknown key, or an AP above 1.
    """
    return text_table(_cells(rows, keys))


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Rows of text, the heading first, as plain text: first column to the left, the others to the right."""
    lines = [[printable(cell) for cell in cells] for cells in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [_line(cells, widths, "  ").rstrip() for cells in lines]
    return "\n".join([text[0], "  ".join("-" * w for w in widths), *text[1:]])


def markdown_table(rows: Sequence[Mapping]) -> str:
    """The table of `result_table` as GitHub markdown, no line break at the end."""
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in _cells(rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"| {_line(cells, widths, ' | ')} |" for cells in lines]
    rules = ["-" * widths[0]] + ["-" * (w - 1) + ":" for w in widths[1:]]
    return "\n".join([text[0], f"| {' | '.join(rules)} |", *text[1:]])


def _line(cells, widths, gap):
    name = cells[0].ljust(widths[0])
    return gap.join([name, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])


def _cells(rows, keys=tuple(COLUMNS)):
    """Heading and rows as text."""
    lines = [[COLUMNS[key][0] for key in keys]]
    for row in rows:
        unknown = sorted(set(row) - set(COLUMNS))
        if unknown:
            raise ValueError(f"unknown columns {unknown}; there are {list(COLUMNS)}")
        lines.append([_text(key, row.get(key)) for key in keys])
    return lines


def _text(key, value):
    _, factor, decimals = COLUMNS[key]
    if value is None:
        return _MISSING
    if factor is None:
        return str(value)
    value = float(value)
    if not math.isfinite(value) or value < 0:
        return _MISSING
    if key.startswith("AP") and value > 1:
        raise ValueError(f"{key} is a share in 0..1, not {value}")
    return f"{value * factor:.{decimals}f}"
