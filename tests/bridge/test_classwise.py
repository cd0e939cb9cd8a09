"""AP by class: as pycocotools counts it, whatever the classes are called, each with a file of its own for its curve."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppkd.bridge.classwise import watched_classes
from ppkd.bridge.workspace import import_ppdet
from tests.helpers_tools import write

NAMES = ["a/b/../c", "..", "x" * 300, "中文", "same", "same", "", "-rf"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """An annotation file with eight classes, the last without an object, in an order that is none; and detections."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("scene")
    ids = [7, 3, 11, 5, 2, 13, 4, 20]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(1, 9)]
    entries, found = [], []
    for image in images:
        for category in random.choice(ids[:-1], 4):
            box = [*random.integers(0, 60, 2).tolist(), *random.integers(8, 40, 2).tolist()]
            entry = {"id": len(entries) + 1, "image_id": image["id"], "category_id": int(category), "bbox": box}
            entries.append(entry | {"area": box[2] * box[3], "iscrowd": 0})
            moved = [float(n) for n in np.array(box) + random.integers(-4, 5, 4)]
            found.append({"image_id": image["id"], "category_id": int(category), "bbox": moved,
                          "score": float(random.random())})  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in zip(ids, NAMES)]
    content = {"images": images, "annotations": entries, "categories": categories}
    return write(folder / "a.json", json.dumps(content)), write(folder / "bbox.json", json.dumps(found)), ids


@pytest.fixture(scope="module")
def classes(scene):
    import_ppdet()
    from ppdet.metrics.coco_utils import cocoapi_eval

    with watched_classes() as found:
        cocoapi_eval(scene[1], "bbox", anno_file=scene[0])
    (each,) = found
    return each


def test_each_class_has_the_ap_that_it_has_alone(classes, scene):
    truth = COCO(scene[0])
    assert [row["name"] for row in classes.rows] == NAMES
    for row, category in zip(classes.rows, scene[2]):
        alone = COCOeval(truth, truth.loadRes(scene[1]), "bbox")
        alone.params.catIds = [category]
        alone.evaluate()
        alone.accumulate()
        alone.summarize()
        assert (row["AP"], row["AP50"]) == pytest.approx(tuple(alone.stats[:2]), abs=1e-12)
        assert row["objects"] == len(truth.getAnnIds(catIds=[category]))
    assert classes.rows[-1]["AP"] == -1 and classes.table().splitlines()[-1].split() == ["-rf", "0", "-", "-"]


def test_each_curve_is_a_file_of_its_own_in_the_folder(classes, tmp_path):
    target = classes.draw(str(tmp_path / "out"))
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == len(NAMES) and all(path.startswith("out/bbox_pr_curve/") for path in made)
    assert target == str(tmp_path / "out" / "bbox_pr_curve")


def test_pycocotools_and_ppdet_are_as_they_were():
    from ppdet.metrics import metrics
    from pycocotools import cocoeval

    before = cocoeval.COCOeval, metrics.DetectionMAP
    with pytest.raises(ZeroDivisionError), watched_classes():
        assert cocoeval.COCOeval is not before[0]
        raise ZeroDivisionError
    assert (cocoeval.COCOeval, metrics.DetectionMAP) == before


def test_vocs_classes_keep_their_names_behind_one_without_objects():
    import_ppdet()
    from ppdet.metrics import metrics

    with watched_classes() as found:
        counted = metrics.DetectionMAP(4, catid2name=dict(enumerate(["a", "b/c", "d", "e"])))
        box = np.array([[0, 0, 10, 10]])
        counted.update(box, [0.9], [1], box, [1])  # found
        counted.update(box, [0.9], [3], box + 50, [3])  # elsewhere
        counted.update(box, [], [], box, [2])  # not at all
        counted.accumulate()
    (each,) = found
    assert [(row["name"], row["objects"], row["AP"]) for row in each.rows] == [
        ("a", 0, -1.0), ("b/c", 1, 1.0), ("d", 1, 0.0), ("e", 1, 0.0),
    ]  # fmt: skip
