"""Annotation files of any content: the scan tells what is wrong with them, and training starts where it finds nothing
grave, and nowhere else."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import strategies as st

from ppkd.bridge.annotation_file import category_names
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import scope
from ppkd.diagnosis.data import KINDS, as_json, as_text, scan_data, verdict
from ppkd.diagnosis.findings import ERROR
from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS
from tests.fuzz.inputs import inputs
from tests.fuzz.test_grammars import ANYTHING

SOUND = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 8, "height": 6},
        {"id": 2, "file_name": "b.png", "width": 8, "height": 6},
    ],
    "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 8, 6], "area": 48, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [2, 2, 2.5, 2], "area": 5, "iscrowd": 1},
    ],
}
PATHS = [
    *((key,) for key in [*SOUND, "info"]),
    *((part, i) for part in SOUND for i in (0, 1)),
    *((part, i, key) for part in SOUND for i in (0, 1) for key in [*SOUND[part][0], "ignore", "segmentation"]),
    *(("annotations", 0, "bbox", i) for i in range(4)),
]
VALUES = ANYTHING | st.sampled_from(
    [1, 2, 3, "1", 1.0, True, -1, 0, 1e30, 10**400, float("nan"), float("inf"), [1, 1, 2, 2], [0, 0, 0, 0], [], {},
     "a.png", "../a.png", "/etc/passwd", "", "\0", "link/a.png", "sub", "\ud800", "a" * 300, [[1, 1, 2, 2, 3, 3]],
     {"counts": []}]
)  # fmt: skip
OUT = object()
CHANGES = st.lists(st.tuples(st.sampled_from(PATHS), VALUES | st.just(OUT)), max_size=3)
MORE = st.lists(st.tuples(st.sampled_from(list(SOUND)), VALUES), max_size=1)


def changed(changes, more):
    content = clone(SOUND)
    for path, value in changes:
        here, value = content, value if value is OUT else clone(value)
        for key in path[:-1]:
            here = here.get(key) if isinstance(here, dict) else here[key] if _has(here, key) else None
        if isinstance(here, dict):
            here.pop(path[-1], None) if value is OUT else here.update({path[-1]: value})
        elif _has(here, path[-1]) and value is not OUT:
            here[path[-1]] = value
    for key, value in more:
        if isinstance(content.get(key), list):
            content[key].append(clone(value))
    return content


def _has(here, key):
    return isinstance(here, list) and isinstance(key, int) and key < len(here)


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    """Two images, one of them again through a link that leads out."""
    root = tmp_path_factory.mktemp("annotations")
    (root / "data" / "sub").mkdir(parents=True)
    for name in ("data/a.png", "data/b.png", "a.png"):
        cv2.imwrite(str(root / name), np.full((6, 8, 3), 99, "uint8"))
    (root / "data" / "link").symlink_to(root)
    (root / "data" / "x.json").write_text(json.dumps(SOUND))
    return root / "data"


@pytest.fixture(scope="module")
def coco_config(coco_folder):
    given = [f"dataset_dir={coco_folder}", "train_images=", "train_annotations=x.json", "num_classes=2"]
    loaded = load_recipe(str(CONFIGS / "retinanet_tiny.yml"), None, given).student
    loaded["TrainDataset"]["image_dir"] = ""
    found = {key: loaded[key] for key in loaded if key != "EvalDataset"}
    # The sound one is good; and what is imported at first use is now.
    assert not any(KINDS[kind][0] == ERROR for kind in scanned(found).counts) and len(opened(found).roidbs) == 2
    return found


def scanned(config):
    (scan,) = scan_data(config)
    assert set(scan.counts) <= set(KINDS) and all(len(texts) <= 5 for texts in scan.examples.values())
    text, made, why = as_text([scan]), json.loads(as_json([scan], config)), verdict([scan], config)
    assert all(kind in text for kind in scan.counts) and made["verdict"] == why
    assert not why or "\n" not in why
    return scan


def opened(config):
    """The data set as training opens it, or why it does not."""
    with scope(config):
        try:
            return open_dataset("TrainDataset", config)
        except UserError as error:
            assert str(error).startswith("TrainDataset: ")
            return str(error)


def check(config, path, quiet):
    try:
        with quiet():
            scan = scanned(config)
    except UserError as error:
        assert str(path) in str(error)
        scan = None
    data = opened(config)
    grave = scan is None or any(KINDS[kind][0] == ERROR for kind in scan.counts)
    assert grave == isinstance(data, str), (data, scan and dict(scan.counts))
    if not grave:
        kept = sum(len(record["gt_bbox"]) for record in data.roidbs)
        if not scan.counts["missing-image"]:
            assert kept == scan.kept + scan.counts["box-outside"]
        for record in data.roidbs:
            boxes = record["gt_bbox"]
            assert np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
            assert ((record["gt_class"] >= 0) & (record["gt_class"] < 2)).all()
    try:
        assert all(isinstance(name, str) for name in category_names(str(path)))
    except UserError as error:
        assert str(path) in str(error)


def test_annotations(coco_folder, coco_config, quiet):
    path = coco_folder / "x.json"

    @inputs(CHANGES, MORE)
    def run(changes, more):
        path.write_text(json.dumps(changed(changes, more)))
        check(coco_config, path, quiet)

    run()
    assert sorted(each.name for each in coco_folder.iterdir()) == ["a.png", "b.png", "link", "sub", "x.json"]


def test_files_of_annotations(coco_folder, coco_config, quiet):
    path = coco_folder / "x.json"
    sound = json.dumps(SOUND)
    pieces = st.sampled_from(list('[]{},:"') + ["NaN", "null", "-", "1e999", "\\ud800", "\0", '"id": 1,', "é"])

    edits = st.tuples(st.integers(0, len(sound)), pieces, st.integers(0, 9))

    @inputs(st.binary(max_size=40) | st.lists(edits, max_size=3))
    def run(given):
        if isinstance(given, bytes):
            path.write_bytes(given)
        else:
            text = sound
            for at, piece, cut in given:
                text = text[:at] + piece + text[at + cut :]
            path.write_text(text, encoding="utf-8")
        check(coco_config, path, quiet)

    run()
