"""Teachers of other classes: another number, other names, another order of the names."""

import json

import pytest

from ppkd.diagnosis.classes import check_classes, judge_names
from ppkd.diagnosis.findings import ERROR, NOTE, WARNING, Findings
from ppkd.diagnosis.subject import build
from ppkd.files.class_names import write_names
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.diagnosis.conftest import STUDENT, grave, shuffled_head, the_finding
from tests.helpers_tools import write

CLASSES = ["disc", "square", "triangle", "star", "ring", "cross"]
OTHERS = ["cat", "dog", "cow", "car", "bus", "cup"]
SHIPPED = ROOT / "ppkd/data/teacher_shapes.pdparams"


def test_a_teacher_of_more_classes(judged, weights):
    changed = weights(shuffled_head([0, 1, 2, 3, 4, 5, 0, 1, 2]))
    findings, results, known = judged(changed, "teacher.eval_size=[256,256]")  # the run evaluates at 192
    found = the_finding(findings, "classes-number")
    assert found.level == WARNING, "features alone are compared"
    assert "trained on 9 classes, the student has 6" in found.text
    assert known["teachers"]["teacher"]["number"] == 9
    assert results["teachers"]["teacher"]["agnostic50"] > 0.5, "its own head was built and judged"


def test_a_teacher_of_fewer_classes_whose_scores_are_compared(options, weights, tmp_path):
    def cwd(path):
        return write(
            path, f"_BASE_: [{ROOT}/configs/demo/ppyoloe_plus_teacher_shapes.yml]\nslim: Distill\nslim_method: CWD\n"
        )

    given = [*options, weights(shuffled_head([0, 1, 2])), "distill.places=[head.cls]"]
    recipe = load_recipe(STUDENT, cwd(tmp_path / "s.yml"), given)
    findings = Findings()
    check_classes(build(recipe, findings), findings)
    assert the_finding(findings, "teacher-weights").level == ERROR, "its head cannot be loaded"
    assert the_finding(findings, "classes-number").level == ERROR


@pytest.fixture
def teacher_names(data, tmp_path):
    """Function from class names to the overrides that make the teacher's config say them."""

    def say(names):
        content = {"images": [], "annotations": [], "categories": [{"id": i, "name": n} for i, n in enumerate(names)]}
        path = write(tmp_path / "theirs.json", json.dumps(content))
        weights = tmp_path / "nameless.pdparams"  # beside the shipped ones their names lie
        weights.symlink_to(SHIPPED)
        given = (f"train_annotations={path}", f"dataset_dir={tmp_path}", f"pretrain_weights={weights}")
        return [f"teacher.{pair}" for pair in given]

    return say


def test_a_teacher_of_other_names(built, teacher_names):
    """Without an AP that says otherwise it is an error; see the next test."""
    subject, findings = built(*teacher_names(OTHERS))
    judge_names(check_classes(subject, findings), {}, subject, findings)
    found = the_finding(findings, "class-names")
    assert found.level == ERROR and "class 0 is 'disc' in the one and 'cat' in the other" in found.text
    assert grave(findings) == ["class-names"]


def test_the_names_beside_a_teachers_weights_count(built, teacher_names, tmp_path):
    """Whatever the data set of its config says: that may be the student's."""
    given = teacher_names(CLASSES)
    write_names(str(tmp_path / "nameless.pdparams"), OTHERS)
    subject, findings = built(*given)
    known = check_classes(subject, findings)["teachers"]["teacher"]
    assert known["names"] == OTHERS and known["file"].endswith("nameless.names.yml")


def test_other_names_of_a_teacher_that_finds_the_same(judged, teacher_names):
    findings, _, _ = judged(*teacher_names(OTHERS))
    assert the_finding(findings, "class-names").level == WARNING
    assert grave(findings) == ["class-names"]


def test_names_spelt_otherwise_are_the_same(built, teacher_names):
    subject, findings = built(*teacher_names([f" {name.upper()}_" for name in CLASSES]))
    judge_names(check_classes(subject, findings), {}, subject, findings)
    assert not grave(findings) and "classes-unknown" not in findings.ids(NOTE)


def test_a_swapped_class_order_is_seen_by_names(built, teacher_names):
    subject, findings = built(*teacher_names([CLASSES[1], CLASSES[0], *CLASSES[2:]]))
    judge_names(check_classes(subject, findings), {}, subject, findings)
    assert the_finding(findings, "class-order").level == ERROR


def test_files_of_the_student_that_order_classes_differently(built, data, tmp_path):
    content = json.loads((data / "annotations/instances_val.json").read_text())
    content["categories"].reverse()
    path = write(tmp_path / "val.json", json.dumps(content))
    subject, findings = built(f"val_annotations={path}")
    check_classes(subject, findings)
    assert the_finding(findings, "data-classes").level == ERROR


def test_classes_that_the_data_lacks(built):
    subject, findings = built("num_classes=8")
    check_classes(subject, findings)
    assert "the student has 8 classes, the data set 6" in the_finding(findings, "unused-classes").text
