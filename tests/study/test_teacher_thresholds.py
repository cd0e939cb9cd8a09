"""Thresholds of a teacher's boxes: found on the run's validation set, and what cannot be found is told."""

import json
import pathlib

import pytest

from ppkd.bridge.class_names import names_of_training
from ppkd.errors import UserError
from ppkd.files.class_names import write_names
from ppkd.methods import plan
from ppkd.study import teacher_thresholds
from ppkd.study.detections import Detections
from ppkd.study.teacher_thresholds import thresholds_of
from tests.helpers_training import QUICK


@pytest.fixture
def found(recipe, shapes, monkeypatch):
    """Function that gives the thresholds where the teacher finds, of each object, what is said for its category."""
    file = pathlib.Path(shapes) / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())

    def detect(find):
        results = [
            {"image_id": box["image_id"], "category_id": box["category_id"], "bbox": where, "score": score}
            for box in content["annotations"]
            for score, where in find(box)
        ]
        return Detections(str(file), "", [image["id"] for image in content["images"]], results)

    def thresholds(find, *overrides):
        loaded = recipe(QUICK, "PKD", overrides=overrides)
        monkeypatch.setattr(teacher_thresholds, "detect", lambda *given: detect(find))
        return thresholds_of(loaded, plan(loaded.method).pseudo_boxes), names_of_training(loaded.student)

    thresholds.first = sorted(content["categories"], key=lambda each: each["id"])[0]["id"]
    thresholds.with_objects = {box["category_id"] for box in content["annotations"]}
    return thresholds


BOXES = "distill.pseudo_boxes=true"
BESIDE = [0, 0, 3, 3]


def test_each_class_has_the_score_at_which_f1_is_highest(found):
    def find(box):
        yield (0.8, box["bbox"]) if box["category_id"] == found.first else (0.4, box["bbox"])
        yield 0.3, BESIDE

    scores, names = found(find, BOXES)
    assert found.first in found.with_objects and scores[names[0]] == 0.8
    assert {*list(scores.values())[1:]} == {0.4} and list(scores) == names


def test_a_class_that_is_never_found_rightly_has_none_and_what_is_given_stays(found):
    def find(box):
        yield 0.9, BESIDE if box["category_id"] == found.first else box["bbox"]

    scores, names = found(find, BOXES)
    assert scores[names[0]] is None and scores[names[1]] == 0.9
    scores, names = found(find, f"distill.pseudo_boxes={{threshold: {{{names[0]}: 0.25}}}}")
    assert scores[names[0]] == 0.25 and scores[names[1]] == 0.9


def test_nothing_is_measured_where_all_is_given(found, monkeypatch):
    assert found(None, "distill.pseudo_boxes={threshold: 0.5}")[0] == {}
    names = found(None, "distill.pseudo_boxes={threshold: 0.5}")[1]
    every = ", ".join(f"{name}: 0.5" for name in names)
    assert found(None, f"distill.pseudo_boxes={{threshold: {{{every}}}}}")[0] == {}
    assert found(None)[0] == {}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([BOXES], "finds nothing rightly in .* images of the validation set"),
        ([BOXES, "metric=VOC"], "metric: COCO, EvalDataset"),
        (["distill.pseudo_boxes={from: wide}"], "from: there is no teacher 'wide'"),
    ],
)
def test_what_cannot_be_found_is_told(overrides, told, found):
    with pytest.raises(UserError, match=told):
        found(lambda box: [(0.9, BESIDE)], *overrides)


def test_weights_of_other_classes_are_refused(recipe, tmp_path):
    loaded = recipe(QUICK, "PKD", overrides=["distill.pseudo_boxes={threshold: 0.5}"])
    names = names_of_training(loaded.student)
    spec = loaded.teachers["teacher"]
    for told in (names[::-1], ["car", *names[1:]]):
        (tmp_path / "weights.pdparams").write_bytes(b"")
        write_names(str(tmp_path / "weights.pdparams"), told)
        spec.weights = str(tmp_path / "weights.pdparams")
        with pytest.raises(UserError, match="Boxes of these would be wrong"):
            thresholds_of(loaded, plan(loaded.method).pseudo_boxes)
