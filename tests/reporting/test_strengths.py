"""The report's section on how strongly terms pull."""

import math
from types import SimpleNamespace

import pytest

from ppkd.reporting import cost
from ppkd.reporting.plots import STYLES, from_zero, legend_below, line, over, plot
from ppkd.reporting.strengths import gradients


def run_of(*records):
    return SimpleNamespace(of_kind=lambda kind: [r for r in records if r["kind"] == kind])


def record(epoch, **numbers):
    return {"kind": "gradients", "epoch": epoch, "step": 3 * epoch, **numbers}


def test_shares_and_cosines_are_plotted_over_the_epochs():
    first = record(0, **{"fgd.share": None, "fgd.cosine": None, "kd.wide.share": 0.5, "kd.wide.cosine": -0.25})
    later = record(1, **{"fgd.share": 0.1, "fgd.cosine": 0.75, "kd.wide.share": 0.25, "kd.wide.cosine": -0.5})
    share, cosine = gradients(run_of(first, {"kind": "train", "epoch": 0, "step": 1, "fgd.share": 9.0}, later))
    assert share.alt.endswith("detection loss over epochs: kd.wide from 0.5 to 0.25; fgd from 0.1 to 0.1.")
    assert cosine.alt == "Cosine of the gradients over epochs: kd.wide from -0.25 to -0.5; fgd from 0.75 to 0.75."


def test_a_run_that_did_not_record_them_has_no_such_plots():
    assert gradients(run_of({"kind": "train", "epoch": 0, "step": 1})) == []
    assert gradients(run_of(record(0, **{"fgd.share": None, "fgd.cosine": None}))) == []


@pytest.mark.parametrize("label", ["\ud800", "a\x1b[31m", "$x^{$", "two\nlines"])
@pytest.mark.parametrize("values", [[1.0, 1e308], [-1e308], [math.inf, 2.0], [math.nan], [5e-324, -1e200]])
def test_a_plot_is_drawn_of_whatever_a_record_says(label, values):
    def draw(axes):
        line(axes, list(range(len(values))), values, STYLES[0], label)
        axes.set(title=label)
        over(axes, "step", 2**61)
        from_zero(axes)
        legend_below(axes)

    assert plot(draw, "alt").data.startswith(b"<?xml")


def test_steps_without_their_time_do_not_count():
    timed = {"kind": "train", "epoch": 0, "step": 1, "seconds_per_step": 0.5}
    found = [cost._training(SimpleNamespace(run=run_of(*steps), role="plain"))
             for steps in ([timed, timed | {"seconds_per_step": 0.7}, record(0)], [record(0) | {"kind": "train"}])]
    assert found == ["0.70", "-"]
