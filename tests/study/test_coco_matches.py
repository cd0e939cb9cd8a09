"""AP of resampled images against pycocotools itself."""

import contextlib
import copy
import io
import random

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppkd.study.coco_matches import Matches

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def made(seed, images=14):
    """A data set with crowds, an image and a class without objects, and detections of varying quality."""
    rng, boxes, results = random.Random(seed), [], []
    for image in range(1, images):
        for _ in range(rng.randint(1, 5)):
            x, y, w, h = (rng.uniform(*span) for span in ((0, 300), (0, 300), (10, 160), (10, 160)))
            category, crowd = rng.randint(1, 3), int(rng.random() < 0.1)
            boxes.append(
                {"id": len(boxes) + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
                 "area": w * h, "iscrowd": crowd, "segmentation": []}
            )  # fmt: skip
            for _ in range(rng.randint(0, 3)):
                moved = [x + rng.gauss(0, 0.12) * w, y + rng.gauss(0, 0.12) * h, w * rng.uniform(0.8, 1.2), h]
                found = category if rng.random() < 0.8 else rng.randint(1, 4)
                results.append({"image_id": image, "category_id": found, "bbox": moved, "score": rng.random()})
    results.append({"image_id": images, "category_id": 1, "bbox": [5, 5, 30, 30], "score": 0.99})
    content = {
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, 5)],
        "annotations": boxes,
    }
    return content, results


def loaded(content):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
    return coco


def judged(content, results, images=None):
    """What pycocotools alone says: its six figures."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = loaded(content)
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


def drawn(content, results, weights):
    """The data set in which each image is as often as its weight says."""
    new, found = {**content, "images": [], "annotations": []}, []
    for image, times in zip(content["images"], weights):
        for _ in range(times):
            number = len(new["images"]) + 1
            new["images"].append({**image, "id": number})
            for entry in content["annotations"]:
                if entry["image_id"] == image["id"]:
                    new["annotations"].append({**entry, "id": len(new["annotations"]) + 1, "image_id": number})
            found += [{**r, "image_id": number} for r in results if r["image_id"] == image["id"]]
    return new, found


@pytest.mark.parametrize("seed", range(5))
def test_every_image_once_is_pycocotools_own_ap(seed):
    content, results = made(seed)
    matches = Matches(loaded(content), results, range(1, 15))
    own = judged(content, results)
    assert 0.05 < own[0] < 0.9
    assert list(matches.stats().values()) == own and tuple(matches.stats()) == KEYS
    assert matches.resampled(np.ones((2, 14))) == pytest.approx([own[0]] * 2, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_resampled_images_give_the_ap_of_a_data_set_that_holds_them_as_often(seed):
    content, results = made(seed)
    matches = Matches(loaded(content), results, range(1, 15))
    weights = np.random.default_rng(seed).multinomial(14, np.full(14, 1 / 14), size=6)
    expected = [judged(*drawn(content, results, row))[0] for row in weights]
    assert len(set(expected)) == 6
    assert matches.resampled(weights) == pytest.approx(expected, abs=1e-9)


def test_chunks_make_no_difference(monkeypatch):
    content, results = made(1)
    matches = Matches(loaded(content), results, range(1, 15))
    weights = np.random.default_rng(0).multinomial(14, np.full(14, 1 / 14), size=9)
    whole = matches.resampled(weights)
    monkeypatch.setattr("ppkd.study.coco_matches._CHUNK", 20)
    assert (matches.resampled(weights) == whole).all()


def test_only_the_images_that_were_looked_at_count():
    content, results = made(2)
    some = [3, 1, 7, 9]
    seen = [r for r in results if r["image_id"] in some]
    matches = Matches(loaded(content), seen, some)
    assert matches.images == [1, 3, 7, 9]
    assert list(matches.stats().values()) == judged(content, seen, some)
    assert matches.resampled(np.ones((1, 4)))[0] == pytest.approx(matches.stats()["AP"], abs=1e-9)


def test_ap_by_class_and_size_averages_to_the_whole():
    matches = Matches(loaded(made(3)[0]), made(3)[1], range(1, 15))
    assert matches.classes == ["class 1", "class 2", "class 3", "class 4"]
    by_class = matches.by_class()
    assert by_class[3] == -1, "no object of this class"
    assert np.mean(by_class[:3]) == pytest.approx(matches.stats()["AP"], abs=1e-12)
    small = [ap for ap in matches.by_class("small") if ap >= 0]
    assert np.mean(small) == pytest.approx(matches.stats()["APs"], abs=1e-12)


def test_a_detector_that_finds_nothing_has_an_ap_of_0():
    matches = Matches(loaded(made(0)[0]), [], range(1, 15))
    assert matches.stats()["AP"] == 0
    assert (matches.resampled(np.ones((1, 14))) == 0).all()


def test_a_set_without_any_object_has_no_ap():
    content, results = made(0)
    matches = Matches(loaded(content), results, range(1, 15))
    only_the_empty_one = np.zeros((1, 14))
    only_the_empty_one[0, 13] = 14
    assert np.isnan(matches.resampled(only_the_empty_one)).all()
