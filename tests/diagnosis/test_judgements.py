"""What the doctor says of figures: a weak teacher, a student that is no beginner, terms outside of a rule."""

from types import SimpleNamespace

import pytest

from ppkd.diagnosis import accuracy, examination
from ppkd.diagnosis.findings import ERROR, NOTE, WARNING, Findings
from ppkd.diagnosis.scores import Scores
from ppkd.diagnosis.show import _weights
from ppkd.diagnosis.step import _check_rule
from ppkd.engine.balance import Pull
from ppkd.errors import UserError
from ppkd.files.class_names import names_beside
from ppkd.training.record import how_trained
from tests.diagnosis.conftest import SLIM, STUDENT, the_finding
from tests.helpers_tools import call, the_error


class Sampled:
    """In place of a sample: what is detected is the detector, whose figures are given."""

    classes, names = 3, {1: "cat", 2: "dog", 3: "cow"}

    def __init__(self, config, count, folder):
        self._count = count

    def __len__(self):
        return self._count

    def detect(self, model, *_):
        return model, "figures"

    def first(self, count):
        return range(count)

    def score(self, found, images=None):
        return Scores(found[0].ap, found[0].ap50, found[0].ap, found[0].ap50)


@pytest.fixture
def figures(monkeypatch):
    """Function: ``(AP, AP50)`` of student and teacher -> what is found in them."""
    monkeypatch.setattr(accuracy, "Sample", Sampled)
    monkeypatch.setattr(accuracy, "eval_preparation", lambda config, spec: None)
    monkeypatch.setattr(accuracy, "other_preparations", lambda config, spec: ())

    def judge(student, teacher, inherited=None, classes=3):
        config = {"architecture": "YOLOv3"}
        model = SimpleNamespace(ap=teacher[0], ap50=teacher[1])
        taught = SimpleNamespace(name="teacher", called="the teacher", whole=model, classes=classes,
                                 spec=SimpleNamespace(config=config))  # fmt: skip
        subject = SimpleNamespace(
            recipe=SimpleNamespace(student=config), student=SimpleNamespace(ap=student[0], ap50=student[1]),
            teachers=[taught], classes=3, inherited=inherited, compares_classes=True,
        )  # fmt: skip
        findings = Findings()
        accuracy.measure_accuracy(subject, 24, "", findings)
        return findings

    return judge


@pytest.mark.parametrize(
    "teacher, found",
    [
        ((0.11, 0.25), [("teacher-weak", WARNING)]), ((0.19, 0.4), [("teacher-weak", WARNING)]), ((0.2, 0.4), []),
        ((0.03, 0.05), [("teacher-weak", WARNING)]), ((0.02, 0.04), [("teacher-near-zero", ERROR)]),
        ((0.0, 0.0), [("teacher-near-zero", ERROR)]),
    ],
)  # fmt: skip
def test_a_weak_teacher_is_told_and_one_that_knows_nothing_is_an_error(teacher, found, figures):
    findings = figures((0.0, 0.0), teacher)
    assert [(item.id, item.level) for item in findings.items] == found
    if found and found[0][1] == WARNING:
        assert f"AP {100 * teacher[0]:.1f} on the sample" in findings.items[0].text
        assert "Train it longer" in findings.items[0].advice


@pytest.mark.parametrize(
    "student, teacher, found",
    [
        ((0.25, 0.5), (0.5, 0.8), ["student-starts-high"]), ((0.24, 0.5), (0.5, 0.8), []),
        ((0.06, 0.1), (0.11, 0.3), ["teacher-weak", "student-starts-high"]), ((0.0, 0.0), (0.0, 0.2), ["teacher-weak"]),
        ((0.5, 0.8), (0.5, 0.8), ["teacher-not-better", "student-starts-high"]),
    ],
)  # fmt: skip
def test_a_student_that_starts_with_much_of_its_teacher_is_told(student, teacher, found, figures):
    assert [item.id for item in figures(student, teacher).items] == found


@pytest.mark.parametrize(
    "inherited, words",
    [(("teacher", 224), "from 224 tensors of the teacher"), (None, "from its weights")],
)
def test_where_a_high_start_comes_from_is_told(inherited, words, figures):
    found = the_finding(figures((0.4, 0.6), (0.5, 0.8), inherited), "student-starts-high")
    assert found.level == NOTE and f"the student starts {words} with AP 40.0 on the sample" in found.text
    assert "plain training from the same start" in found.advice


def term(label, loss="fgd", magnitude=None):
    spec = SimpleNamespace(name=label.split(".")[0], loss={"name": loss}, magnitude=magnitude)
    return SimpleNamespace(label=label, spec=spec)


def pulls(**parts):
    return [Pull("detection", 4.0, 20.0, 0.5, 1.0),
            *(Pull(name.replace("__", "."), value, 1.0, 0.1, 0.1) for name, value in parts.items())]  # fmt: skip


@pytest.mark.parametrize(
    "parts, terms, told",
    [
        # Each part over all of its levels: 0.06 and 0.05 are within, 1.5 and 0.6 are not.
        ({"fgd__s8__fg": 0.06, "fgd__s16__fg": 0.05}, [term("fgd.s8"), term("fgd.s16")], None),
        ({"fgd__s8__fg": 1.5, "fgd__s16__fg": 0.6, "fgd__s8__bg": 1.0}, [term("fgd.s8"), term("fgd.s16")], "fg 2.1"),
        ({"fgd__s8__fg": 0.01, "fgd__s8__bg": 7}, [term("fgd.s8")], "fg 0.01, bg 7"),
        # A magnitude finds its own weight, and the rule is not other losses'.
        ({"fgd__s8__fg": 9.0}, [term("fgd.s8", magnitude=0.2)], None),
        ({"pkd__s8": 9.0}, [term("pkd.s8", "pkd")], None),
    ],
)  # fmt: skip
def test_parts_of_fgd_outside_of_its_authors_rule_are_told(parts, terms, told):
    findings = Findings()
    _check_rule(pulls(**parts), terms, findings)
    assert findings.ids(NOTE) == (["term-outside-rule"] if told else [])
    if told:
        (item,) = findings.items
        assert item.text.endswith(f"each between 0.1 and 2 in the first steps: {told}")
        assert "-o distill.terms.fgd.magnitude=1.0" in item.advice


@pytest.mark.parametrize(
    "recipe, told",
    [
        ("run: {class_names: [cat, dog]}", "was trained without a teacher"),
        ("run: {}\ndistill: {name: FGD, params: {}}", "was itself taught by FGD"), (None, None),
    ],
)  # fmt: skip
def test_how_a_teacher_was_trained_is_read_beside_its_weights(recipe, told, tmp_path):
    weights = str(tmp_path / "model_final.pdparams")
    if recipe:
        (tmp_path / "recipe.yml").write_text(recipe)
    assert how_trained(weights) == told
    assert names_beside(weights)[0] == (["cat", "dog"] if recipe and "cat" in recipe else None)
    match = {"file": weights, "tensors": 9, "taken": 9, "missing": [], "unfit": [], "training": told}
    text = _weights({"weights": {"student": None, "teachers": {"teacher": match}, "inherited": None}})
    assert (f"teacher {told} (recipe.yml beside its weights)" in text) == bool(told)


def test_the_command_waives_findings_by_name(options, built, monkeypatch, capsys):
    """What is waived is shown as a note and ends nothing; a name that is none is told before the work."""

    def measured(subject, count, folder, findings):
        findings.add("teacher-near-zero", "the teacher has AP50 0.0")
        findings.add("teacher-weak", "the teacher has AP 11.0 on the sample, which is little")
        return {}, {}

    subject, _ = built()
    monkeypatch.setattr(examination, "build", lambda *_: subject)
    monkeypatch.setattr(examination, "measure_accuracy", measured)
    monkeypatch.setattr(examination, "_train", lambda *_: None)
    given = ("doctor", "-c", STUDENT, "--slim_config", SLIM)
    line = the_error(*call(*given, "-o", *options))
    assert "do not start this run: teacher-near-zero" in line
    assert call(*given, "--waive", "teacher-near-zero,teacher-weak", "-o", *options)[0] == 0
    out = capsys.readouterr().out
    assert "note [teacher-near-zero] waived: the teacher has AP50 0.0" in out
    assert out.rstrip().endswith("Verdict: Nothing speaks against starting this run.")
    monkeypatch.setattr(examination, "build", lambda *_: pytest.fail("it was begun"))
    for name in ("teacher-zero", "near-zero"):
        line = the_error(*call(*given, "--waive", name, "-o", *options))
        assert f"--waive {name}: there is no such finding" in line
    with pytest.raises(UserError, match="no such finding"):
        Findings().waive(["nothing"])
