"""``ppkd doctor``: silent about a healthy pair (the demo's), exit code 1 where there is an error, documented."""

import json

import pytest

from ppkd.cli import doctor_parser
from ppkd.diagnosis import accuracy, examination
from ppkd.diagnosis.classes import check_classes
from ppkd.diagnosis.examination import examine
from ppkd.diagnosis.findings import ERROR, KINDS, NOTE, WARNING, Findings
from ppkd.diagnosis.step import STRONG
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.diagnosis.conftest import IMAGES, SLIM, STUDENT, the_finding
from tests.helpers_tools import call, the_error


@pytest.fixture(scope="module")
def healthy(options, tmp_path_factory):
    """Exit code, standard error, report and JSON of the demo's pair, and the files that appeared."""
    folder = tmp_path_factory.mktemp("healthy")
    file = folder / "made" / "doctor.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ("-c", STUDENT, "--slim_config", SLIM, "--images", IMAGES, "--json", file)
        code, errors = call("doctor", *arguments, "-o", *options)
    return code, errors, json.loads(file.read_text()), [path for path in folder.rglob("*") if path.is_file()]


def test_a_healthy_pair_gets_neither_error_nor_warning(healthy):
    code, errors, told, files = healthy
    assert code == 0 and not errors
    assert [item for item in told["findings"] if item["level"] != NOTE] == []
    assert told["errors"] == told["warnings"] == 0
    assert told["verdict"] == "Nothing speaks against starting this run."
    assert [path.name for path in files] == ["doctor.json"], "nothing else is written"


def test_everything_is_measured(healthy):
    _, _, told, _ = healthy
    assert told["weights"]["teachers"]["teacher"]["taken"] == told["weights"]["teachers"]["teacher"]["tensors"] == 429
    assert told["weights"]["inherited"] == {"from": "teacher", "tensors": 224}
    assert told["classes"]["student"]["number"] == told["classes"]["teachers"]["teacher"]["number"] == 6
    assert told["classes"]["student"]["names"][:2] == ["disc", "square"]
    accuracy = told["accuracy"]
    assert accuracy["images"] == IMAGES and accuracy["student"]["ap50"] < 0.05
    assert accuracy["teachers"]["teacher"]["ap50"] > 0.5 and len(accuracy["teachers"]["teacher"]["by_class"]) == 6
    assert [row["student_place"] for row in told["levels"]] == ["stride 32", "stride 16", "stride 8"]
    assert [row["part"] for row in told["step"]][:2] == ["detection", "fgd.s32.fg"] and len(told["step"]) == 13
    assert sum(row["share"] for row in told["step"]) == pytest.approx(1)
    assert all(row["weight"] == 1 for row in told["step"][1:])
    cost = told["cost"]
    assert cost["distilled"]["step_seconds"] > 0 < cost["plain"]["step_seconds"]
    assert cost["batches_per_epoch"] == 4 and cost["epochs"] == cost["epochs_distilled"] == 3


def test_errors_end_the_command_with_one(options, tmp_path, monkeypatch, capsys, built):
    """Also what is said: the finding in the report, its id in the last line, and the file is written."""

    def examined(recipe, images, waived):
        made = examination.Examination()
        subject, made.findings = built("teacher.pretrain_weights=null")
        made.results = {"weights": examination._weights(subject), "classes": check_classes(subject, made.findings)}
        return made

    monkeypatch.setattr("ppkd.diagnosis.examine", examined)
    file = tmp_path / "d.json"
    code, errors = call("doctor", "-c", STUDENT, "--slim_config", SLIM, "--json", file, "-o", *options)
    assert the_error(code, errors).startswith("doctor: do not start this run: teacher-untrained")
    out = capsys.readouterr().out
    assert "ERROR [teacher-untrained] the teacher has no weights" in out
    assert "Verdict: Do not start this run: 1 error. First: Give its weights: -o teacher.pretrain_weights=PATH." in out
    assert json.loads(file.read_text())["findings"][0]["id"] == "teacher-untrained"


def test_a_step_that_fails_is_told_after_all_else(options, monkeypatch):
    def fail(*_):
        raise ValueError("(InvalidArgument) Illegal input\n  [Hint: more]")

    monkeypatch.setattr(examination, "check_step", fail)
    monkeypatch.setattr(accuracy, "other_preparations", lambda config, spec: ())
    found = examine(load_recipe(STUDENT, SLIM, options), 2)
    assert the_finding(found.findings, "step-failed").text.endswith("ValueError: (InvalidArgument) Illegal input")
    assert found.results["levels"]


def test_what_cannot_be_built_is_a_finding_and_the_rest_goes_on(options):
    recipe = load_recipe(
        STUDENT, SLIM, [*options, "distill.terms.fgd.student_connector=none", "distill.terms.fgd.teacher=backbone[*]"]
    )
    found = examine(recipe, 2)
    assert "build-failed" in found.findings.ids(ERROR)
    assert found.results["accuracy"]["images"] == 2 and "step" not in found.results
    assert found.verdict.startswith("Do not start this run")


def test_a_finding_that_is_waived_is_a_note():
    findings = Findings()
    findings.add("teacher-near-zero", "it knows nothing")
    findings.add("term-too-strong", "too strong", factor=3, term="fgd")
    findings.waive(["teacher-near-zero"])
    assert findings.ids(ERROR) == ["term-too-strong"] and findings.ids(NOTE) == ["teacher-near-zero"]
    assert findings.of(NOTE)[0].text == "waived: it knows nothing"
    with pytest.raises(UserError, match="--waive teacher-zero: there is no such finding; nearest: teacher-near-zero"):
        findings.waive(["teacher-zero"])


def test_a_finding_has_a_level_that_its_kind_knows():
    findings = Findings()
    with pytest.raises(ValueError, match="never a note"):
        findings.add("dead-source", "x", NOTE)
    for kind in KINDS.values():
        assert kind.advice and set(kind.levels) <= {ERROR, WARNING, NOTE}


def test_the_page_has_every_finding_with_its_levels():
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| `")]
    assert [row for row in rows if not row[2]] == []
    told = {name.strip("`"): tuple(levels.split(", ")) for name, levels, _ in rows}
    assert told == {name: kind.levels for name, kind in KINDS.items()}
    value, gradient = (f"more than {least} (error: {most}) times" for least, most in STRONG.values())
    assert value in text and gradient in text
    assert f"sample ({doctor_parser().get_default('images')})" in text
