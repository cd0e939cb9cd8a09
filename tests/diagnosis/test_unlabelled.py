"""The doctor on images without labels: near and far ones, empty ones, and those that cannot be."""

import dataclasses
import os
import shutil

import cv2
import numpy as np
import pytest

from ppkd.data.shapes import generate
from ppkd.diagnosis.show import _unlabelled
from ppkd.diagnosis.unlabelled import _distances, look_at_unlabelled
from ppkd.errors import UserError
from tests.diagnosis.conftest import grave, the_finding


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of images: ``near`` as the teacher knows them, with one that is broken, and ``grey`` ones."""
    folder = tmp_path_factory.mktemp("photos")
    shutil.copytree(
        os.path.join(generate(folder / "made", train=12, val=1, size=224, seed=31), "train"), folder / "near"
    )
    (folder / "near" / "zz.jpg").write_bytes(b"\xff\xd8 no image")
    (folder / "grey").mkdir()
    draw = np.random.default_rng(0)
    for number in range(6):
        pixels = np.clip(draw.normal(120, 3, (224, 224, 3)), 0, 255).astype("uint8")
        cv2.imwrite(str(folder / "grey" / f"{number}.png"), pixels)
    return folder


def looked(built, tmp_path, given, count=13):
    subject, findings = built(f"unlabelled={given}")
    return look_at_unlabelled(subject, count, str(tmp_path), findings), findings


def test_images_that_the_teacher_knows_are_near_and_full_of_objects(built, photos, tmp_path):
    found, findings = looked(built, tmp_path, photos / "near")
    assert (found["images"], found["looked_at"], found["bad"]) == (13, 12, 1)
    assert "unlabelled-far" not in grave(findings) and "unlabelled-empty" not in grave(findings)
    assert found["detections"]["unlabelled"] > 1 and found["detections"]["labelled"] > 1
    assert 0 < found["below_threshold"] < 1 and found["without"] < 0.5
    text = _unlabelled({"unlabelled": found})
    assert "12 of 13 were looked at, 1 more cannot be read" in text and "detections an image" in text


def test_boxes_for_the_student_are_those_of_its_own_thresholds(built, photos, tmp_path):
    given = f"unlabelled={photos}/near"
    subject, findings = built(given, "distill.pseudo_boxes={threshold: {star: 0.9}}")
    found = look_at_unlabelled(subject, 12, str(tmp_path), findings)
    assert [name for name, limit in found["thresholds"].items() if limit == 0.9] == ["star"] and found["right"] > 0.6
    assert "pseudo-boxes-wrong" not in grave(findings)
    assert f"{found['right']:.0%} are right" in " ".join(_unlabelled({"unlabelled": found}).split())

    subject.model.boxes.spec = dataclasses.replace(subject.model.boxes.spec, threshold=0.01)
    found = look_at_unlabelled(subject, 12, str(tmp_path), findings)
    assert set(found["thresholds"].values()) == {0.01} and found["right"] < 0.5
    assert "is right at the thresholds of distill" in the_finding(findings, "pseudo-boxes-wrong").text

    subject.model.boxes.spec = dataclasses.replace(subject.model.boxes.spec, threshold={"sta": 0.5})
    with pytest.raises(UserError, match=r"threshold: no class 'sta'.*star"):
        look_at_unlabelled(subject, 12, str(tmp_path), findings)


def test_others_are_far_and_empty(built, photos, tmp_path):
    found, findings = looked(built, tmp_path, photos / "grey")
    assert found["distance"] > 2 * found["distance_within"] and found["without"] == 1
    assert len(found["never"]) == 6
    assert "deviations from labelled ones" in the_finding(findings, "unlabelled-far").text
    assert "finds nothing in 6 of them" in the_finding(findings, "unlabelled-empty").text


def test_images_of_the_validation_set_end_it(built, data, tmp_path):
    with pytest.raises(UserError, match="12 of 12 images are images of the validation set"):
        looked(built, tmp_path, data / "val")


def test_without_such_images_there_is_nothing_to_say(built, tmp_path):
    subject, findings = built()
    before = len(findings.items)
    assert look_at_unlabelled(subject, 4, str(tmp_path), findings) == {} and len(findings.items) == before
    assert _unlabelled({}) == ""


def test_a_distance_is_in_deviations_and_blind_to_dead_channels():
    draw = np.random.default_rng(0)
    ours = draw.normal(0, [1, 10, 0], (2000, 3))
    found = _distances(ours, ours + [2, 20, 5])
    assert found["distance"] == pytest.approx(2, rel=0.05) and found["distance_within"] < 0.1


def test_a_channel_that_a_few_labelled_images_hardly_have_makes_nothing_far():
    """Which is alive in one image of many: by chance in one of the others."""
    draw = np.random.default_rng(0)
    ours, theirs = draw.normal(0, 1, (16, 100)), draw.normal(0, 1, (10, 100))
    ours[:, :4] *= 1e-3
    found = _distances(ours, theirs)
    assert found["distance"] < 0.8 and found["distance_within"] < 0.8
    assert _distances(ours, theirs + 3)["distance"] > 2
