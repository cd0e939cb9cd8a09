"""What `ppkd label` says of training on its file is what training needs."""

import shlex
import shutil

import pytest

import ppkd
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.workspace import scope
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from tests.labelling.conftest import TEACHER


def test_the_keys_that_are_told_are_all_that_training_needs(sets, tmp_path, caplog, monkeypatch):
    """A validation set of another name, photographs that are links or stand in a list beyond its folder, and blanks."""
    monkeypatch.setattr(logger(), "propagate", True)
    data, photos = tmp_path / "my data", tmp_path / "my photos"
    shutil.copytree(sets / "labelled", data)
    (data / "annotations" / "instances_val.json").rename(data / "annotations" / "instances_test.json")
    photos.mkdir()
    theirs = sorted((sets / "photos").glob("*.jpg"))
    (photos / "a.jpg").symlink_to(theirs[1])
    (photos / "list.txt").write_text(f"a.jpg\n{theirs[2]}\n")
    given = {"sample": 4, "threshold": 0.1}
    beyond = ppkd.label(data, TEACHER, photos / "list.txt", tmp_path / "b.json", opt={"allow_outside": True}, **given)
    assert beyond.counts["labelled"] == 2
    with pytest.raises(UserError, match="lead out of"):
        ppkd.label(data, TEACHER, photos / "list.txt", tmp_path / "c.json", opt={"allow_outside": False}, **given)
    with caplog.at_level("INFO", "ppkd"):
        links = ppkd.label(data, TEACHER, photos, tmp_path / "a.json", **given)
    told = next(line for line in reversed(caplog.messages) if line.startswith("to train on it: -o "))
    words = shlex.split(told.removeprefix("to train on it: -o "))
    assert words[0] == f"dataset_dir={data}" and "allow_outside=true" in words
    for made, count in ((beyond, 2), (links, 1)):
        assert made.training["val_annotations"] == "annotations/instances_test.json"
        words = [f"dataset_dir={data}", *(f"{key}={value}" for key, value in made.training.items())]
        config = load_recipe("ppyoloe_plus_tiny_custom", None, words).student
        with scope(config):
            assert len(open_dataset("TrainDataset", config).roidbs) == count
            assert len(open_dataset("EvalDataset", config).roidbs) == 16
