"""Plots show what they are for."""

import pytest

from ppkd.reporting.plots import STYLES, line, over, plot


@pytest.mark.parametrize("points", [1, 5])
def test_the_markers_at_both_ends_are_whole(points):
    seen = []

    def draw(axes):
        line(axes, range(points), [2.0] * points, STYLES[0], "a")
        over(axes, "epoch", points - 1)
        seen.append(axes)

    plot(draw, "a line", size=(4.1, 2.6))
    axes = seen[0]
    radius = (axes.lines[0].get_markersize() + axes.lines[0].get_markeredgewidth()) / 2 * axes.figure.dpi / 72
    ends = [axes.transData.transform((x, 2))[0] for x in (0, points - 1)]
    assert ends[0] - radius >= axes.bbox.x0 and ends[1] + radius <= axes.bbox.x1
