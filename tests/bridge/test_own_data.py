"""The short keys for a data set of one's own."""

import json
import os

import pytest

from ppkd.bridge.annotation_file import category_names
from ppkd.bridge.own_data import KEYS, expand_own_data, finds_masks
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from tests.helpers_tools import write

CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 2, "name": "platelet"}]


@pytest.fixture
def own(tmp_path):
    """Short keys of a data set with two categories."""
    write(tmp_path / "train.json", json.dumps({"images": [], "annotations": [], "categories": CATEGORIES}))
    return {
        "dataset_dir": str(tmp_path), "train_images": "a", "train_annotations": "train.json", "val_images": "b",
        "val_annotations": "val.json", "num_classes": "auto",
    }  # fmt: skip


def test_fields_of_a_section_go_over_what_the_short_keys_make_of_it(own):
    """As ``-o TrainDataset.sample_num=50`` gives them: a mapping without a class."""
    own |= {"TrainDataset": {"sample_num": 50, "allow_empty": False}, "EvalDataset": {"name": "VOCDataSet"}}
    expand_own_data(own)
    train, val = own["TrainDataset"], own["EvalDataset"]
    assert (train.tag, train["sample_num"], train["allow_empty"], train["image_dir"]) == ("COCODataSet", 50, False, "a")
    assert not isinstance(val, Tagged) and val["name"] == "VOCDataSet"


def test_short_keys_become_three_sections_and_are_gone(own, tmp_path):
    expand_own_data(own)
    where = str(tmp_path)
    train, val, test = own["TrainDataset"], own["EvalDataset"], own["TestDataset"]
    assert (train.tag, val.tag, test.tag) == ("COCODataSet", "COCODataSet", "ImageFolder")
    assert train == {
        "data_fields": ["image", "gt_bbox", "gt_class", "is_crowd"], "allow_empty": True,
        "dataset_dir": where, "image_dir": "a", "anno_path": "train.json",
    }  # fmt: skip
    assert val == {
        "data_fields": ["image"], "allow_empty": True, "dataset_dir": where, "image_dir": "b", "anno_path": "val.json",
    }  # fmt: skip
    assert test == {"dataset_dir": where, "anno_path": "val.json"}
    assert own["num_classes"] == 2
    assert not set(KEYS) & set(own)


def test_a_single_key_changes_that_field_alone():
    """`-o dataset_dir=/data/coco` is enough for a config that names its data sets."""
    config = {
        "TrainDataset": {"name": "COCODataSet", "dataset_dir": "dataset/coco", "image_dir": "train2017"},
        "EvalDataset": Tagged("VOCDataSet", {"dataset_dir": "dataset/voc", "anno_path": "val.txt"}),
        "TestDataset": {"name": "ImageFolder", "image_dir": "kept away"},
        "dataset_dir": "/data/coco", "num_classes": 80,
    }  # fmt: skip
    expand_own_data(config)
    assert config["TrainDataset"] == {"name": "COCODataSet", "dataset_dir": "/data/coco", "image_dir": "train2017"}
    assert config["EvalDataset"].tag == "VOCDataSet"
    assert config["EvalDataset"] == {"dataset_dir": "/data/coco", "anno_path": "val.txt"}
    assert config["TestDataset"] == {"name": "ImageFolder", "dataset_dir": "/data/coco"}
    assert config["num_classes"] == 80


def test_allow_empty_reaches_new_and_existing_sections_but_not_the_test_set(own):
    own["allow_empty"] = False
    own["EvalDataset"] = {"name": "COCODataSet", "allow_empty": True}
    expand_own_data(own)
    assert own["TrainDataset"]["allow_empty"] is False
    assert own["EvalDataset"]["allow_empty"] is False
    assert "allow_empty" not in own["TestDataset"]


def test_a_config_without_short_keys_stays_as_it_is():
    config = {"TrainDataset": Tagged("COCODataSet", {"image_dir": "x"}), "num_classes": 3}
    expand_own_data(config)
    assert config == {"TrainDataset": {"image_dir": "x"}, "num_classes": 3}


def test_the_home_folder_is_expanded(own):
    own["dataset_dir"], own["num_classes"] = "~/data", 2
    expand_own_data(own)
    for name in ("TrainDataset", "EvalDataset", "TestDataset"):
        assert own[name]["dataset_dir"] == os.path.expanduser("~/data")


def test_num_classes_auto_counts_in_any_train_dataset(own, tmp_path):
    section = {"name": "COCODataSet", "dataset_dir": str(tmp_path), "anno_path": "train.json"}
    config = {"TrainDataset": section, "num_classes": "auto"}
    expand_own_data(config)
    assert config["num_classes"] == 2


@pytest.mark.parametrize("config", [{}, {"dataset_dir": "x"}, {"TrainDataset": {"name": "ImageFolder"}}])
def test_num_classes_auto_without_annotations(config):
    with pytest.raises(UserError, match="counts the categories.*none are given.*or set num_classes to a number"):
        expand_own_data({**config, "num_classes": "auto"})


@pytest.mark.parametrize("classes", ["three", 0, None, [3]])
def test_num_classes_has_to_be_a_number(classes):
    with pytest.raises(UserError, match="num_classes has to be a number of classes or auto, found"):
        expand_own_data({"num_classes": classes})


def test_categories_come_in_the_order_of_the_file(own, tmp_path):
    assert category_names(str(tmp_path / "train.json")) == ["cell", "platelet"]


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"categories": [', "a.json: broken JSON: .*line 1 column"),
        ('{"shapes": 1, "version": 2}', r"no categories in it \(its keys are shapes, version\)"),
        ("[1, 2]", r"no categories in it \(it holds a list\)"),
        ('{"categories": []}', "its `categories` are empty"),
        ('{"categories": ["cell"]}', "every category needs a `name` and an `id`"),
        ('{"categories": [{"id": 1}]}', r"every category needs a `name` and an `id`"),
        ("\xff", "a.json: broken JSON"),
    ],
)
def test_annotations_that_are_none(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=message):
        category_names(str(tmp_path / "a.json"))


def test_annotations_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"b\.json: no such annotation file \(looked for /.*Set dataset_dir and"):
        category_names(str(tmp_path / "b.json"))
    with pytest.raises(UserError, match="cannot be read: is a folder, not a file"):
        category_names(str(tmp_path))


@pytest.mark.parametrize(
    "config, masks",
    [
        ({"architecture": "QueryInst"}, True),
        ({"architecture": "CascadeRCNN", "CascadeRCNN": {"mask_head": "MaskHead"}}, True),
        ({"architecture": "CascadeRCNN", "CascadeRCNN": {}}, False),
        ({"architecture": "PPYOLOE", "TrainReader": {"sample_transforms": [{"Decode": {}}, {"Poly2Mask": {}}]}}, True),
        ({"architecture": "DETR", "TrainReader": {"sample_transforms": [{"Decode": {}}, {"RandomFlip": {}}]}}, False),
        ({"architecture": "DETR", "TrainReader": {"sample_transforms": None}}, False),
    ],
)
def test_polygons_are_read_for_detectors_that_find_masks(config, masks):
    assert finds_masks(config) == masks
