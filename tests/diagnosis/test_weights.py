"""Weights that are not what they ought to be."""

from ppkd.diagnosis.findings import ERROR, WARNING
from tests.diagnosis.conftest import TEACHER, grave, the_finding


def test_a_backbone_of_another_student(built):
    _, findings = built(f"pretrain_weights={TEACHER}")
    assert the_finding(findings, "student-weights").level == WARNING


def test_a_teacher_without_its_head(built, weights):
    def cut(state):
        for name in list(state):
            if name.startswith("yolo_head."):
                del state[name]

    subject, findings = built(weights(cut))
    assert grave(findings) == ["teacher-head"] and subject.teachers[0].whole is None


def test_weights_of_a_backbone_alone(built, weights):
    def cut(state):
        for name in list(state):
            if not name.startswith("backbone."):
                del state[name]

    subject, findings = built(weights(cut))
    assert the_finding(findings, "teacher-weights").level == ERROR
    assert subject.teachers[0].whole is None
