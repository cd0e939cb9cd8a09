"""Names that others chose: they lead nowhere outside of their folder, and are plain where files are written."""

import json
import os
import shutil

import pytest

from ppkd.errors import UserError
from ppkd.files.paths import Folder, safe_name
from ppkd.training.inference import check_not_over
from tests.conftest import CONFIGS
from tests.helpers_tools import call, the_error, write

STUDENT = CONFIGS / "retinanet_tiny.yml"


@pytest.mark.parametrize(
    "text, name",
    [
        ("retinanet_r50-fpn.1x", "retinanet_r50-fpn.1x"), ("Größe 2 (neu)", "Größe 2 (neu)"), ("模型", "模型"),
        ("../../etc/passwd", "_.._etc_passwd"), ("/etc/passwd", "_etc_passwd"), ("..", ""), (".hidden", "hidden"),
        ("-rf", "rf"), ("~root", "root"), ("a\nb\x00c", "a_b_c"), ("a\u202eb", "a_b"), ("C:\\x|y?", "C_x_y_"), ("", ""),
        ("x" * 999, "x" * 200), ("ü" * 150, "ü" * 100),
    ],
)  # fmt: skip
def test_safe_names(text, name):
    assert safe_name(text) == name


def test_a_folder_holds_what_lies_below_it_links_followed(tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "data2").mkdir()
    (data / "link").symlink_to(tmp_path / "secret")
    (data / "inner").symlink_to(data / "sub" / "x")
    (data / "away").symlink_to(tmp_path)
    (tmp_path / "to_data").symlink_to(data)
    for folder in (Folder(str(data)), Folder(str(tmp_path / "to_data"))):
        for path in ("x", "sub/x", "sub/../x", "inner", "sub/..", "away/data/x", "a/b/none"):
            assert folder.holds(os.path.join(folder.path, path)), path
        for path in ("link", "../secret", "away/secret", "sub/../../secret", "../data2/x", "/etc/passwd", ".."):
            assert not folder.holds(os.path.join(folder.path, path)), path
    assert Folder("/").holds("/etc/passwd")


# Annotation files


@pytest.fixture
def mine(tmp_path, shapes, monkeypatch):
    """A copy of the generated data set in the working directory, and a file beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tmp_path / shapes, tmp_path / "mine")
    shutil.copy(tmp_path / "mine/train/000001.jpg", tmp_path / "outside.jpg")
    return tmp_path / "mine"


def rename(folder, split, name):
    """Let the first image of a split have another name."""
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))


def train(*overrides):
    return call("train", "-c", STUDENT, "--max_steps", 1, "-o", "dataset_dir=mine", *overrides)


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_names_that_lead_out_of_the_data_set_are_refused_unless_allowed(mine, kind):
    outside = mine.parent / "outside.jpg"
    if kind == "link":
        (mine / "train" / "link.jpg").symlink_to(outside)
    rename(mine, "train", {"parent": "../../outside.jpg", "absolute": str(outside), "link": "link.jpg"}[kind])
    message = the_error(*train())
    assert message == (
        "TrainDataset: 1 of 12 names in annotations/instances_train.json lead out of the data set's folder mine, the "
        f"first to {outside}; if that is as you want it, set -o allow_outside=true"
    )
    assert not (mine.parent / "output").exists()
    assert train("allow_outside=true")[0] == 0


def test_names_of_an_evaluation_are_checked_too(mine):
    rename(mine, "val", "../../outside.jpg")
    message = the_error(*call("eval", "-c", STUDENT, "-o", "dataset_dir=mine"))
    assert message.startswith("EvalDataset: 1 of 6 names in annotations/instances_val.json lead out of")


def test_a_folder_of_images_may_be_a_link(mine):
    shutil.move(mine / "train", mine.parent / "elsewhere")
    (mine / "train").symlink_to(mine.parent / "elsewhere")
    rename(mine, "train", "../elsewhere/000001.jpg")
    assert train()[0] == 0


def test_names_of_a_voc_list_are_checked_before_they_are_opened(mine, monkeypatch):
    from xml.etree import ElementTree

    opened = []
    monkeypatch.setattr(ElementTree, "parse", lambda path: opened.append(path) or 1 / 0)
    write(mine.parent / "outside.xml", "<annotation/>")
    write(mine / "list.txt", "train/000001.jpg ../outside.xml\n")
    write(mine / "labels.txt", "a\n")
    config = write(
        mine.parent / "voc.yml",
        f"_BASE_: [{STUDENT}]\nmetric: VOC\nnum_classes: 1\ndataset_dir: mine\ntrain_images: null\n"
        "train_annotations: null\nTrainDataset:\n  !VOCDataSet\n    dataset_dir: mine\n"
        "    anno_path: list.txt\n    label_list: labels.txt\n    data_fields: [image, gt_bbox, gt_class, difficult]\n",
    )
    message = the_error(*call("train", "-c", config, "--max_steps", 1))
    assert message.startswith("TrainDataset: 1 of 2 names in list.txt lead out of the data set's folder mine")
    assert opened == []


@pytest.mark.parametrize("value", ["3", "maybe"])
def test_allow_outside_is_yes_or_no(mine, value):
    assert the_error(*train(f"allow_outside={value}")).startswith("allow_outside has to be true or false, found ")


# What is written


def test_output_folders_have_plain_names(tmp_path):
    from ppkd.recipe.recipe import load_recipe

    for name, plain in (("-rf ..\n", "rf .._"), ("~", "model"), ("a:b", "a_b")):
        path = write(tmp_path / f"{name}.yml", f"_BASE_: [{STUDENT}]\nnum_classes: 2\nsave_dir: out\n")
        assert load_recipe(path).output_dir == os.path.join("out", plain)


def test_an_image_is_not_drawn_over_itself(mine):
    before = (mine / "val" / "000001.jpg").read_bytes()
    arguments = ["--infer_dir", "mine/val", "--output_dir", "mine/../mine/val", "-o", "dataset_dir=mine"]
    message = the_error(*call("infer", "-c", STUDENT, *arguments))
    assert message.startswith("--output_dir mine/../mine/val: mine/val/") and "would be overwritten" in message
    assert (mine / "val" / "000001.jpg").read_bytes() == before


def test_images_of_one_name_are_not_drawn_over_one_another(tmp_path):
    paths = [str(tmp_path / folder / "x.jpg") for folder in ("one", "other")]
    with pytest.raises(UserError, match="one/x.jpg and .*other/x.jpg would both be drawn as x.jpg in out"):
        check_not_over(paths, "out")
    check_not_over([paths[0], paths[0]], "out")
