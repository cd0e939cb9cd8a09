"""The doctor's figures on a sample, against ones worked out by hand."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from pycocotools.mask import encode

from ppkd.diagnosis.classes import names_in
from ppkd.diagnosis.scores import found_as, renamed, renaming, score
from tests.helpers_tools import write


@pytest.fixture(scope="module")
def truth():
    """Four images, in each an object of class 1 at the left and one of class 2 at the right."""
    from pycocotools.coco import COCO

    coco = COCO()
    boxes = [
        {"id": 2 * i + c, "image_id": i, "category_id": c, "bbox": [100 * c, 0, 50, 50], "area": 2500, "iscrowd": 0}
        for i in range(1, 5)
        for c in (1, 2)
    ]
    images = [{"id": i, "width": 300, "height": 100} for i in range(1, 5)]
    coco.dataset = {"images": images, "annotations": boxes, "categories": [{"id": 1}, {"id": 2}, {"id": 3}]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def found(of_left, of_right, images=(1, 2, 3, 4)):
    """Exact detections under the given category ids."""
    return [
        {"image_id": i, "category_id": c, "bbox": [100 * place, 0, 50, 50], "score": 0.9}
        for i in images
        for place, c in ((1, of_left), (2, of_right))
    ]


def test_what_is_found_exactly_has_all_of_it(truth):
    result = score(truth, found(1, 2))
    assert (result.ap, result.ap50, result.agnostic, result.agnostic50) == pytest.approx((1, 1, 1, 1))
    assert result.by_class == pytest.approx({1: 1, 2: 1})


def test_swapped_classes_have_nothing_but_places(truth):
    result = score(truth, found(2, 1))
    assert result.ap50 == 0 and result.agnostic50 == pytest.approx(1) and result.by_class == {1: 0, 2: 0}


def test_images_that_are_left_out_do_not_count(truth):
    half = found(1, 2, images=(1, 2))
    assert score(truth, half).ap50 == pytest.approx(0.5, abs=0.01)
    assert score(truth, half, images=[1, 2]).ap50 == pytest.approx(1)


def test_nothing_found_is_zero(truth):
    result = score(truth, [])
    assert result.ap == result.agnostic50 == 0 and result.by_class == {1: 0.0, 2: 0.0}


def test_what_objects_are_taken_for(truth):
    assert found_as(truth, found(2, 3)) == {1: {2: 4}, 2: {3: 4}}
    sure = [box | {"category_id": 3, "score": 0.95} for box in found(1, 2)[:1]]
    assert found_as(truth, found(1, 2) + sure) == {1: {1: 3, 3: 1}, 2: {2: 4}}, "the surest counts"
    beside = [box | {"bbox": [0, 60, 20, 20]} for box in found(1, 2)]
    assert found_as(truth, beside) == {}


def test_classes_that_stand_for_others():
    assert renaming({1: {1: 9}, 2: {2: 5}}) == {}
    assert renaming({1: {2: 9, 1: 1}, 2: {1: 5}}) == {2: 1, 1: 2}
    assert renaming({1: {2: 2}}) == {}, "too few to tell"
    assert renaming({1: {2: 3, 3: 3}}) == {}, "no agreement"
    assert renamed(found(2, 1, images=[1]), {2: 1, 1: 2}) == found(1, 2, images=[1])


def test_class_names_stand_in_the_order_of_the_file(tmp_path):
    content = {"categories": [{"id": 7, "name": "b"}, {"id": 3, "name": "a"}]}
    path = write(tmp_path / "ann.json", json.dumps(content))
    assert names_in({"TrainDataset": {"dataset_dir": str(tmp_path), "anno_path": "ann.json"}}) == (["b", "a"], path)
    assert names_in({"dataset_dir": str(tmp_path), "train_annotations": "ann.json"}) == (["b", "a"], path)
    labels = write(tmp_path / "labels.txt", "background\nx\ny\n")
    assert names_in({"TestDataset": {"anno_path": labels}}, ["TestDataset"]) == (["x", "y"], labels)
    voc = {"anno_path": write(tmp_path / "trainval.txt", "a.jpg a.xml\n"), "label_list": labels}
    assert names_in({"EvalDataset": voc}) == (["x", "y"], labels)
    assert names_in({"EvalDataset": {"anno_path": voc["anno_path"]}}) == (None, None), "a list of images"
    assert names_in({"TrainDataset": {"anno_path": str(tmp_path / "none.json")}}) == (None, None)


def test_published_coco_is_known_by_its_files_name():
    names, _ = names_in({"num_classes": 80, "TrainDataset": {"anno_path": "annotations/instances_train2017.json"}})
    assert len(names) == 80 and names[0] == "person" and names[79] == "toothbrush"


def test_detections_are_left_as_they_are(truth):
    masks = [{key: x for key, x in each.items() if key != "bbox"} for each in found(1, 2)]
    for each, box in zip(masks, found(1, 2)):
        left, top, width, height = box["bbox"]
        mask = np.zeros((100, 300), "uint8", order="F")
        mask[top : top + height, left : left + width] = 1
        each["segmentation"] = encode(mask)
    before = copy.deepcopy(masks)
    assert [score(truth, masks, "bbox") for _ in range(2)][1].ap == pytest.approx(1)
    assert masks == before
