"""What the teacher finds in the student's images tells random weights, swapped classes and wrong normalisation."""

import json

import paddle
import pytest
from pycocotools.coco import COCO

from ppkd.bridge.workspace import scope
from ppkd.diagnosis import accuracy, normalisations
from ppkd.diagnosis.findings import ERROR, WARNING, Findings
from ppkd.diagnosis.sample import _seen
from ppkd.diagnosis.subject import build
from ppkd.engine.teacher_inputs import Resized
from ppkd.recipe.recipe import load_recipe
from ppkd.training.evaluation import evaluate
from tests.bridge.test_coco import ap, opened
from tests.conftest import ROOT
from tests.diagnosis.conftest import IMAGENET, IMAGES, SLIM, TEACHER, grave, noise, shuffled_head, the_finding


def test_a_teacher_with_random_weights(judged, weights):
    findings, results, _ = judged(weights(noise))
    assert the_finding(findings, "teacher-near-zero").level == ERROR
    assert grave(findings) == ["teacher-near-zero"]
    assert results["teachers"]["teacher"]["ap50"] < 0.05


def test_a_swapped_class_order_is_seen_by_what_the_teacher_finds(judged, weights):
    findings, results, _ = judged(weights(shuffled_head([1, 0, 2, 3, 5, 4])))
    found = the_finding(findings, "class-order")
    assert found.level == ERROR, "the student inherits the head"
    assert "its class 1 finds your 'disc' (class 0); " in found.text + "; "
    assert "its class 2" not in found.text
    assert set(grave(findings)) <= {"class-order", "teacher-weak"}
    by_class = results["teachers"]["teacher"]["by_class"]
    assert by_class["disc"] < 0.2 < by_class["star"]


def test_a_wholly_turned_class_order_is_no_zero_teacher(judged, weights):
    findings, results, _ = judged(weights(shuffled_head([5, 0, 1, 2, 3, 4])), "distill.inherit=false")
    assert results["teachers"]["teacher"]["ap50"] < 0.2 < 0.5 < results["teachers"]["teacher"]["agnostic50"]
    assert the_finding(findings, "class-order").level == WARNING, "neither scores nor the head are taken"
    assert set(grave(findings)) <= {"class-order", "teacher-weak"}


def test_a_teacher_whose_config_normalises_otherwise_than_its_training_did(judged):
    """The wrapper goes by the config: the teacher gets images that it does not know."""
    findings, _, _ = judged(f"teacher.TrainReader.batch_transforms={IMAGENET}", other_preparations=True)
    found = the_finding(findings, "teacher-normalisation")
    assert found.level == ERROR and "images with pixels divided by 255" in found.text
    assert grave(findings) == ["teacher-normalisation"]


def test_a_student_that_knows_as_much_as_its_teacher(options, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "other_preparations", lambda config, spec: ())
    config = str(ROOT / "configs/demo/ppyoloe_plus_teacher_shapes.yml")
    findings = Findings()
    subject = build(load_recipe(config, SLIM, [*options, f"pretrain_weights={TEACHER}"]), findings)
    results, _ = accuracy.measure_accuracy(subject, IMAGES, str(tmp_path), findings)
    assert grave(findings) == ["teacher-not-better"]
    assert results["student"] == results["teachers"]["teacher"], "the same model through the wrapper"


def test_ap_is_what_pycocotools_says_of_the_detections(options, tmp_path, monkeypatch):
    """On the images with objects, which is what a sample of all of them holds."""
    monkeypatch.setattr(accuracy, "other_preparations", lambda config, spec: ())
    loaded = load_recipe(str(ROOT / "configs/demo/ppyoloe_plus_teacher_shapes.yml"), SLIM, options)
    subject = build(loaded, Findings())
    (tmp_path / "sample").mkdir()
    results, _ = accuracy.measure_accuracy(subject, 100, str(tmp_path / "sample"), Findings())
    with scope(loaded.student) as table:
        evaluate(subject.teachers[0].whole, table, str(tmp_path / "out"))
    truth = opened(f"{loaded.student['EvalDataset']['dataset_dir']}/annotations/instances_val.json", COCO)
    images = sorted({entry["image_id"] for entry in truth.dataset["annotations"]})
    expected = ap(truth, json.loads((tmp_path / "out" / "bbox.json").read_text()), images)
    found = results["teachers"]["teacher"]
    assert expected[0] > 0.2 and [found["ap"], found["ap50"]] == pytest.approx(expected[:2], abs=1e-6)


def test_a_validation_set_that_cannot_be_sampled(built, tmp_path):
    subject, findings = built()
    subject.recipe.student["EvalDataset"]["anno_path"] = "labels.txt"
    assert accuracy.measure_accuracy(subject, IMAGES, str(tmp_path), findings) == ({}, {})
    assert grave(findings) == ["accuracy-not-measured"]


def test_boxes_found_in_resized_images_go_back_to_the_images_own_pixels():
    batch = {
        "image": paddle.zeros([1, 3, 64, 96]),
        "im_shape": paddle.ones([1, 2]),
        "scale_factor": paddle.ones([1, 2]),
    }
    assert _seen(Resized(2.0), batch)["scale_factor"].tolist() == [[2.0, 2.0]]
    assert _seen(Resized(1.4), batch)["scale_factor"].tolist() == [[1.5, pytest.approx(128 / 96)]], "kept to 32 pixels"
    assert _seen(normalisations.same, batch) is batch
