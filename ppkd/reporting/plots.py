"""Plots for reading on paper, too, and by colour-blind readers: Okabe-Ito's colours, each with a line and a marker."""

import io
import math

from ppkd.reporting.document import Image
from ppkd.study.cells import OKABE_ITO
from ppkd.terminal.text import printable

# Colour, line and marker of the lines of a plot, in this order.
STYLES = (
    (OKABE_ITO["blue"], "-", "o"),
    (OKABE_ITO["orange"], "--", "s"),
    (OKABE_ITO["green"], "-.", "^"),
    (OKABE_ITO["purple"], (0, (5, 1, 1, 1, 1, 1)), "D"),
    (OKABE_ITO["red"], (0, (3, 1)), "v"),
    (OKABE_ITO["sky"], (0, (1, 1)), "P"),
)
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")
# Values from here on are none that an axis can have its marks at.
_BEYOND = 1e100
_DPI = 96  # of CSS, so that sizes in inches are those on the page
_SETTINGS = {
    "text.parse_math": False,  # a folder's name is no formula
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "ppkd",
}


def plot(draw, alt, caption="", size=(4.1, 3.0)):
    """An `Image` (SVG).

    Args:
        draw: function that draws into matplotlib's axes.
        alt, caption: of the image.
        size: inches at 96 pixels.
    """
    return _image(lambda figure: draw(figure.add_subplot()), "svg", alt, caption, size, layout="constrained")


def photo(draw, alt, caption, size):
    """An `Image` (JPEG at twice the resolution) whose axes fill it and have no frame.

    Args:
        draw: function that draws into matplotlib's axes.
        alt, caption, size: as for `plot`.
    """

    def fill(figure):
        axes = figure.add_axes((0, 0, 1, 1))
        draw(axes)
        axes.axis("off")

    return _image(fill, "jpeg", alt, caption, size, dpi=2 * _DPI, pil_kwargs={"quality": 88})


def _image(fill, kind, alt, caption, size, layout=None, **options):
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    with rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        fill(figure)
        for text in figure.findobj(Text):
            text.set_text(printable(text.get_text(), lines=True))  # matplotlib fails on half a character
        buffer = io.BytesIO()
        metadata = {"metadata": {"Date": None}} if kind == "svg" else {}  # the same page twice is the same bytes
        figure.savefig(buffer, format=kind, **metadata, **options)
    return Image(buffer.getvalue(), kind, alt, caption, tuple(round(_DPI * side) for side in size))


def line(axes, x, y, style, label=None, dense=12):
    """Draw a line with about `dense` markers on it; what is not finite, or beyond all measure, is a gap."""
    colour, dashes, marker = style
    every = max(1, len(x) // dense)
    y = [value if abs(value) < _BEYOND else math.nan for value in y]
    axes.plot(x, y, color=colour, linestyle=dashes, marker=marker, markevery=every, label=label)


def over(axes, what, last):
    """Let the axis along count epochs or steps, from 0 on, with room for the markers at both ends."""
    end = max(last, 1)
    axes.set(xlabel=what, xlim=(-0.02 * end, 1.02 * end))
    axes.xaxis.get_major_locator().set_params(integer=True)


def from_zero(axes):
    """Let the axis upwards have the 0 on it, and room above the highest line."""
    low, high = axes.get_ylim()
    low = min(0.0, low)
    axes.set_ylim(low, high + 0.05 * (high - low))


def legend_below(axes, columns=3):
    """The legend under the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(
            handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), handlelength=3.2
        )
