"""A run is resumed with the files that it began with: other contents at the same place are another recipe."""

import json
import pathlib
import shutil

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.files import locate
from ppkd.files.locate import local_file
from ppkd.files.yaml_io import Tagged
from ppkd.recipe.recipe import Recipe
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.checkpoint import load
from ppkd.training.contents import PREFIX, contents
from ppkd.training.digest import check_same
from ppkd.training.resuming import state_to_go_on
from tests.helpers_training import FOUR, QUICK, fit


def made(folder, tag="COCODataSet"):
    """A recipe of files in a folder, which have their own names for contents."""
    for name in ("a.xml", "b.xml", "classes.txt", "anno", "start.pdparams", "images/a.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    if tag == "VOCDataSet":
        (folder / "anno").write_text("images/a.jpg a.xml\nimages/b.jpg b.xml\nimages/c.jpg gone.xml\n")
    given = {"dataset_dir": str(folder), "anno_path": "anno", "label_list": "classes.txt"}
    return Recipe("r", {"pretrain_weights": str(folder / "start"), "TrainDataset": Tagged(tag, given)})


@pytest.mark.parametrize(
    "tag, changed, key",
    [
        ("COCODataSet", "anno", "TrainDataset.anno_path"), ("COCODataSet", "classes.txt", "TrainDataset.label_list"),
        ("COCODataSet", "start.pdparams", "pretrain_weights"), ("VOCDataSet", "anno", "TrainDataset.anno_path"),
        ("VOCDataSet", "b.xml", "TrainDataset.anno_path"), ("COCODataSet", "b.xml", None),
    ],
)  # fmt: skip
def test_a_change_of_any_file_is_seen_though_its_size_and_time_are_the_same(tag, changed, key, tmp_path):
    recipe = made(tmp_path, tag)
    before, path = contents(recipe), tmp_path / changed
    assert contents(recipe) == before and len(before) == 3
    path.with_name("times").touch()
    shutil.copystat(path, path.with_name("times"))
    path.write_text(path.read_text().swapcase())
    shutil.copystat(path.with_name("times"), path)
    if key is None:
        assert contents(recipe) == before
        return
    with pytest.raises(UserError, match=rf"{key}: the file's content is another one \(SHA-256 .*then, .* now\)"):
        check_same(before, contents(recipe), forced=False)
    assert len(check_same(before, contents(recipe), forced=True)) == 1


def test_what_is_not_there_or_was_not_looked_at_is_not_compared(tmp_path):
    recipe = made(tmp_path)
    before = contents(recipe)
    (tmp_path / "start.pdparams").unlink()
    assert PREFIX + "pretrain_weights" in before and PREFIX + "pretrain_weights" not in contents(recipe)
    assert check_same(before, contents(recipe), forced=False) == []
    assert check_same({}, before, forced=False) == [], "a checkpoint of a former version"


def test_weights_of_an_address_are_those_that_were_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "CACHE", str(tmp_path))
    assert local_file("ppdet://models/a.pdparams") is None and local_file(None) is None
    (tmp_path / "a.pdparams").write_text("a")
    assert local_file("ppdet://models/a.pdparams#sha256=" + "0" * 64) == str(tmp_path / "a.pdparams")
    assert local_file("https://elsewhere.example/a.pdparams") is None


def test_a_run_with_another_teacher_or_other_annotations_is_refused(recipe, shapes, teacher_weights, tmp_path):
    shutil.copytree(shapes, tmp_path / "d")
    shutil.copy(teacher_weights[QUICK], tmp_path / "t.pdparams")
    given = [FOUR, f"dataset_dir={tmp_path / 'd'}", f"teacher.pretrain_weights={tmp_path / 't.pdparams'}"]
    loaded = recipe(QUICK, overrides=given)
    fit(loaded, max_steps=1)
    path = f"{loaded.output_dir}/model_final"
    kept = {key for key in load(path)["digest"] if key.startswith(PREFIX)}
    sets = {f"{PREFIX}{name}.anno_path" for name in ("TrainDataset", "EvalDataset")}
    assert kept == {PREFIX + "teacher.pretrain_weights", *sets}

    state = paddle.load(str(tmp_path / "t.pdparams"))
    paddle.save({k: v * 1.5 if "float" in str(v.dtype) else v for k, v in state.items()}, str(tmp_path / "t.pdparams"))
    with pytest.raises(UserError, match=r"teacher\.pretrain_weights: the file's content is another one.*--force"):
        fit(loaded, resume=path)
    shutil.copy(teacher_weights[QUICK], tmp_path / "t.pdparams")
    annotations = pathlib.Path(tmp_path, "d", "annotations", "instances_train.json")
    content = json.loads(annotations.read_text())
    content["annotations"][0]["bbox"][0] += 1
    annotations.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"TrainDataset\.anno_path: the file's content"):
        fit(loaded, resume="auto")
    assert fit(loaded, resume=path, force=True, max_steps=2).step == 2
    key = PREFIX + "TrainDataset.anno_path"
    assert load(path)["digest"][key] == contents(loaded)[key], "the new contents are now the run's"


@pytest.mark.parametrize("best, told", [(0.25, True), (-1.0, False)])
@pytest.mark.parametrize("change", [lambda text: text + " ", lambda text: text.replace('"iscrowd": 0', '"iscrowd": 1')])
def test_another_validation_set_is_told_where_there_is_something_to_compare(
    change, best, told, recipe, shapes, tmp_path, caplog, monkeypatch
):
    shutil.copytree(shapes, tmp_path / "d")
    loaded = recipe(QUICK, distil=False, overrides=[f"dataset_dir={tmp_path / 'd'}"])
    before = contents(loaded)
    path = tmp_path / "d" / "annotations" / "instances_val.json"
    path.write_text(change(path.read_text()))
    state = {"digest": before, "terms": None, "best": best, "names": None}
    monkeypatch.setattr(checkpoint, "load", lambda _: state)
    monkeypatch.setattr(checkpoint, "admitted", lambda *_: None)
    monkeypatch.setattr(logger(), "propagate", True)
    assert state_to_go_on(loaded, "x", False, {}, None) is state
    line = "EvalDataset.anno_path: the file's content is another one"
    assert (line in caplog.text and "best_model, of AP 25.0, is the former's" in caplog.text) == told
