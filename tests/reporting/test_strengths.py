"""The report's section on how strongly terms pull."""

from types import SimpleNamespace

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
