"""One training step taken apart: strength of terms, dead sources, attention, levels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ppkd.diagnosis.features import check_attention, check_sources
from ppkd.diagnosis.findings import ERROR, NOTE, WARNING, Findings
from ppkd.diagnosis.levels import check_levels
from ppkd.diagnosis.step import _check_strength, busiest_epoch
from ppkd.engine import balance
from ppkd.recipe.plan import TermSpec
from ppkd.recipe.schedules import Schedule
from tests.diagnosis.conftest import grave, the_finding


def test_a_term_that_is_a_thousand_times_too_strong(stepped):
    findings, rows = stepped("distill.terms.fgd.weight=1000")
    found = the_finding(findings, "term-too-strong")
    assert found.level == ERROR and "fgd is too strong" in found.text and grave(findings) == ["term-too-strong"]
    assert "-o distill.terms.fgd.magnitude=20%" in found.advice
    assert sum(row["share"] for row in rows[1:]) > 0.9


@pytest.mark.parametrize(
    "value, norm, cosine, expected",
    [
        (1.0, 2.0, 0.1, []), (90.0, 500.0, 0.1, []), (200.0, 2.0, 0.1, [("term-too-strong", WARNING)]),
        (1.0, 2500.0, 0.1, [("term-too-strong", WARNING)]), (800.0, 2.0, 0.1, [("term-too-strong", ERROR)]),
        (1.0, 9000.0, 0.1, [("term-too-strong", ERROR)]), (1e-5, 1e-5, 0.1, [("term-negligible", WARNING)]),
        (1e-5, 2.0, 0.1, []), (1.0, 20.0, -0.8, [("term-opposed", WARNING)]), (1.0, 2.0, -0.8, []),
    ],
)  # fmt: skip
def test_a_term_beside_the_detection_loss(value, norm, cosine, expected):
    """Levels and parts of a term count together: here two halves."""
    half = [balance.Pull(f"t.s{s}.part", value / 2, norm / 2, 0.1, cosine) for s in (8, 16)]
    findings = Findings()
    _check_strength([balance.Pull("detection", 4.0, 20.0, 0.5, 1.0), *half], {"t.s8": "t", "t.s16": "t"}, findings)
    assert [(item.id, item.level) for item in findings.items] == expected


def test_gradients_are_not_compared_while_the_head_is_zero(stepped):
    findings, rows = stepped("distill.inherit=false")
    assert "zero-head" in findings.ids(NOTE) and not grave(findings)
    assert rows[0]["gradient"] < sum(row["gradient"] for row in rows[1:])


def test_no_term_at_all_is_told():
    findings = Findings()
    _check_strength([balance.Pull("detection", 4.0, 20.0, 1.0, 1.0)], {}, findings)
    assert findings.ids(WARNING) == ["term-negligible"]


def test_a_source_that_is_dead(stepped, weights):
    def switch_off(state):
        last = [name for name in state if name.startswith("neck.pan_stages.1.") and ".conv3.bn." in name]
        assert last
        for name in last:
            if name.endswith((".weight", ".bias")):
                state[name] = np.zeros_like(state[name])

    findings, _ = stepped(weights(switch_off), "distill.inherit=false")
    found = the_finding(findings, "dead-source")
    assert found.level == ERROR and "the teacher's neck[1] (fgd.s16) is zero everywhere" in found.text


def test_features_that_do_not_see_the_image(stepped, weights):
    """Every channel is what its bias makes of it."""

    def blind(state):
        for name in state:
            if name.startswith("backbone.stem") and name.endswith("bn.weight"):
                state[name] = np.zeros_like(state[name])

    findings, _ = stepped(weights(blind))
    texts = [item.text for item in findings.items if item.id == "dead-source"]
    assert len(texts) == 3 and all("the same for every image" in text for text in texts)


def test_a_term_without_a_gradient(stepped):
    def cut(subject):
        from paddle import nn

        class Cut(nn.Layer):
            channels = 192

            def forward(self, x, like=None, age=0):
                return x.detach()

        subject.model.terms[0].connect_student[0] = Cut()

    findings, _ = stepped(change=cut)
    found = the_finding(findings, "no-gradient")
    assert found.level == WARNING and "fgd.s32" in found.text, "one level of three"


def test_values_that_are_not_finite(stepped, weights):
    def break_(state):
        name = next(name for name in state if name.startswith("neck.pan_stages.1.") and name.endswith(".bn.bias"))
        state[name] = np.full_like(state[name], np.nan)

    findings, _ = stepped(weights(break_), "distill.inherit=false")
    assert findings.ids(ERROR) == ["broken-weights", "not-finite"]
    texts = [item.text for item in findings.items if item.id == "not-finite"]
    assert any("fgd.s16.fg" in text and "one training step" in text for text in texts), "the parts of the loss"
    assert any("the teacher's neck[1] (fgd.s16)" in text for text in texts), "and the map that they come from"


def test_attention_that_chooses_one_place(stepped):
    findings, _ = stepped("distill.temp=0.0005")
    found = [item for item in findings.items if item.id == "attention-saturated"]
    assert {item.level for item in found} == {WARNING}
    assert "of FGD's attention (temp 0.0005) is on one place of 36" in found[0].text


def test_attention_that_chooses_nothing():
    one, flat = np.eye(1, 16, dtype="float32") * 16, np.ones((1, 16), "float32")
    term = SimpleNamespace(label="fgd.s8", loss=SimpleNamespace(temp=0.5))
    findings = Findings()
    check_attention(SimpleNamespace(attention=lambda: [(term, one, flat)]), findings)
    assert findings.ids(WARNING) == ["attention-saturated"] and findings.ids(NOTE) == ["attention-flat"]


def test_channels_that_do_not_vary():
    rng = np.random.RandomState(0)
    level, value = SimpleNamespace(source="neck[0]"), rng.randn(2, 8, 4, 4).astype("float32")
    findings = Findings()
    for dead, expected in ((4, []), (5, ["constant-channels"])):
        value[:, :dead] = 3
        seen = SimpleNamespace(sources=lambda: [("teacher", level, ["fgd.s8"], value)])
        assert not check_sources(seen, set(), findings) and findings.ids(WARNING) == expected
    assert "62% of the channels of the teacher's neck[0] (fgd.s8)" in findings.items[0].text


def test_a_constant_tensor_of_the_student_is_dead_only_without_a_gradient():
    level, value = SimpleNamespace(source="head.cls[0]"), np.full((2, 6, 4, 4), -4.6, "float32")
    seen = SimpleNamespace(sources=lambda: [(None, level, ["cwd.s8"], value)])
    findings = Findings()
    assert not check_sources(seen, set(), findings) and findings.ids(ERROR, WARNING, NOTE) == ["student-constant"]
    assert check_sources(seen, {"cwd.s8"}, findings) == {"cwd.s8"} and findings.ids(ERROR) == ["dead-source"]


def test_levels_without_a_partner_or_of_another_stride(built):
    subject, findings = built("distill.terms.fgd.max_levels=1")
    rows = check_levels(subject, findings)
    assert [(row["student_source"], row["teacher_source"]) for row in rows] == [("neck[0]", "neck[0]")]
    assert the_finding(findings, "level-left-out").text.endswith("neck[1], neck[2]")
    subject, findings = built("distill.terms.fgd.student=neck[2]", "distill.terms.fgd.teacher=neck[0]")
    check_levels(subject, findings)
    found = the_finding(findings, "strides-differ")
    assert found.text.endswith("the student's neck[2] has 8, teacher's neck[0] 32") and found.level == WARNING


@pytest.mark.parametrize("schedule, epoch", [({}, 0), ({"start": 2}, 2), ({"warmup": 3}, 3)])
def test_the_step_is_taken_when_the_terms_are_strongest(schedule, epoch):
    spec = TermSpec("t", "neck[*]", "neck[*]", {"name": "pkd"}, schedule=Schedule(**schedule))
    off = replace(spec, weight=0, schedule=Schedule(start=4))
    assert busiest_epoch(SimpleNamespace(terms=[SimpleNamespace(spec=s) for s in (spec, off)]), 5) == epoch
