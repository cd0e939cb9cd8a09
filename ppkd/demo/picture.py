"""One picture of a distillation: what teacher, plain and distilled student see, and their curves.

Needs matplotlib, imported only when a picture is drawn.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

from ppkd.files.write import write_bytes
from ppkd.study.cells import LEGEND, OKABE_ITO, draw_box, draw_cell
from ppkd.study.samples import MODELS

__all__ = ["demo_picture"]

_CURVES = {"plain": (OKABE_ITO["orange"], "--", "s"), "distilled": (OKABE_ITO["blue"], "-", "o")}

_WIDTH, _DPI = 8.0, 200  # inches and dots an inch: 1600 px
_MARGIN, _GAP, _TITLE, _HEADING, _CAPTION = 0.16, 0.07, 0.42, 0.24, 0.26
_LEGEND, _PLOT = 0.42, 2.6


# ---- drawing -----------------------------------------------------------------------------------


def demo_picture(
    path: str | os.PathLike,
    samples: Sequence[Mapping],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    teacher_ap: float | None = None,
    note: str = "",
) -> str:
    """Writes a PNG, 1600 px wide: a row for every sample, below it AP over epochs.

    The columns are ground truth, teacher, plain and distilled student (those that the samples
    have). A solid blue box is a correct detection (IoU 0.5), a dotted red one a wrong one, a dashed
    yellow one an object that was missed.

    Args:
        path: the file to write; its folder is made.
        samples: {"image": path, "truth": [(x1, y1, x2, y2, class name)], "detections":
            {"teacher" | "plain" | "distilled": [(x1, y1, x2, y2, class name, score)]}}, pixels.
            All detections given are drawn. See `pick_samples`.
        curves: {"plain": [(epoch, AP)], "distilled": [...]}, AP in 0..1; may be empty.
        title: heading of the picture.
        teacher_ap: AP of the teacher, 0..1, drawn as a horizontal line.
        note: a line of small print under the title, such as how the samples were chosen.

    Returns:
        `path`.

    Raises:
        ValueError: neither samples nor curves, or an AP outside 0..1.
        ImportError: no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ppkd.bridge.images import picture

    curves = {name: sorted(curves[name]) for name in _CURVES if curves.get(name)}
    if not samples and not curves:
        raise ValueError("nothing to draw: neither samples nor curves")
    _check_ap([ap for points in curves.values() for _, ap in points])
    _check_ap([] if teacher_ap is None else [teacher_ap])

    columns = ["truth", *(m for m in MODELS if any(m in s["detections"] for s in samples))]
    cell = (_WIDTH - 2 * _MARGIN - _GAP * (len(columns) - 1)) / len(columns)
    pictures = []
    for sample in samples:
        pictures.append(picture(sample["image"]))
    heights = [cell * p.height / p.width for p in pictures]
    top = _TITLE + (0.18 if note else 0)
    height = top + _MARGIN
    if samples:
        height += _HEADING + sum(heights) + _CAPTION * len(heights) + _LEGEND
    if curves:
        height += _PLOT
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = _Page(figure, height)
    page.text(_MARGIN, 0.27, title, 13, weight="bold")
    page.text(_MARGIN, 0.45, note, 7.5, color="#444444")

    y = top
    if samples:
        y += _HEADING
        for column, name in enumerate(columns):
            x = _MARGIN + column * (cell + _GAP)
            page.text(x, y - 0.08, MODELS.get(name, "ground truth"), 10, weight="bold")
            below = y
            for sample, image, tall in zip(samples, pictures, heights, strict=True):
                caption = draw_cell(page.axes(x, below, cell, tall), image, sample, name, cell)
                page.text(x, below + tall + 0.14, caption, 8)
                below += tall + _CAPTION
        y += sum(heights) + _CAPTION * len(heights)
        _draw_legend(page, y + 0.12)
        y += _LEGEND
    if curves:
        box = (_MARGIN + 0.5, y + 0.1, _WIDTH - 2 * _MARGIN - 1.75, _PLOT - 0.55)
        _draw_curves(page.axes(*box), curves, teacher_ap)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    path = os.fspath(path)
    write_bytes(path, drawn.getvalue())
    return path


def _check_ap(values):
    bad = [ap for ap in values if not 0 <= ap <= 1]
    if bad:
        raise ValueError(f"AP is a share in 0..1, not {bad[0]}")


class _Page:
    """A figure measured in inches from its upper left corner."""

    def __init__(self, figure, height):
        self.figure, self.height = figure, height

    def axes(self, x, y, w, h):
        down = 1 - (y + h) / self.height
        return self.figure.add_axes((x / _WIDTH, down, w / _WIDTH, h / self.height))

    def text(self, x, y, text, size, **style):
        place = x / _WIDTH, 1 - y / self.height
        self.figure.text(*place, text, fontsize=size, parse_math=False, **style)


def _draw_legend(page, y):
    axes = page.axes(_MARGIN, y, _WIDTH - 2 * _MARGIN, 0.2)
    axes.set(xlim=(0, _WIDTH - 2 * _MARGIN), ylim=(0.2, 0))
    axes.axis("off")
    for (kind, text), x in zip(LEGEND, (0.02, 3.05, 4.45), strict=True):
        draw_box(axes, kind, (x, 0.04, x + 0.22, 0.16))
        axes.text(x + 0.3, 0.105, text, fontsize=8, va="center")


def _draw_curves(axes, curves, teacher_ap):
    ends = []
    for name, points in curves.items():
        colour, style, marker = _CURVES[name]
        epochs, values = zip(*((e, 100 * ap) for e, ap in points), strict=True)
        every = max(1, len(points) // 12)
        axes.plot(epochs, values, style, color=colour, lw=2, marker=marker, ms=4.5, markevery=every)
        ends.append((values[-1], f"{MODELS[name]}\n{values[-1]:.1f}", colour, epochs[-1]))
    if teacher_ap is not None:
        axes.axhline(100 * teacher_ap, color=OKABE_ITO["black"], lw=1.4, ls=":")
        right = axes.get_xlim()[1]
        ends.append((100 * teacher_ap, f"teacher\n{100 * teacher_ap:.1f}", OKABE_ITO["black"], right))
    axes.set_ylim(0, max(1.0, 1.12 * max(axes.dataLim.y1, *(end[0] for end in ends))))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("AP on the validation set (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _label_ends(axes, ends)


def _label_ends(axes, ends):
    """Names at the right end of the lines, moved apart where they would overlap."""
    high = axes.get_ylim()[1]
    least = 0.15 * high
    ends.sort(key=lambda end: end[0])
    heights = []
    for value, *_ in ends:
        heights.append(max(value, heights[-1] + least) if heights else value)
    limit = high
    for i in reversed(range(len(heights))):  # what was pushed out above comes down again
        heights[i] = min(heights[i], limit)
        limit = heights[i] - least
    for (value, text, colour, last), height in zip(ends, heights, strict=True):
        # orange text on white is hard to read: the leader carries the colour, the text is dark
        leader = {"arrowstyle": "-", "color": colour, "lw": 1.2, "shrinkA": 1, "shrinkB": 0}
        style = {"fontsize": 8.5, "weight": "bold", "va": "center", "color": "#222222"}
        place = {"textcoords": "axes fraction", "annotation_clip": False, "arrowprops": leader}
        axes.annotate(text, (last, value), (1.03, height / high), **place, **style)
