"""Names of classes belong to the weights: kept beside them, read back, and compared with data."""

import json
import logging

import pytest

from ppkd.bridge import class_names
from ppkd.bridge.class_names import called, names_of, names_of_training, tell_difference, tell_taught, tell_unused
from ppkd.bridge.own_data import expand_own_data
from ppkd.errors import UserError
from ppkd.files.class_names import SUFFIX, file_beside, given_names, names_beside, write_names
from ppkd.recipe.recipe import Recipe
from ppkd.recipe.teachers import TeacherSpec
from ppkd.terminal.log import logger
from ppkd.training.checkpoint import keep_newest, save
from tests.helpers_tools import write

FRUIT = ["apple", "梨 pear", "on"]


@pytest.fixture
def told():
    """What is logged from a warning on."""
    lines = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger().addHandler(handler)
    yield lines
    logger().removeHandler(handler)


def coco(path, names, first=1):
    categories = [{"id": i, "name": name} for i, name in enumerate(names, first)]
    return write(path, json.dumps({"images": [], "annotations": [], "categories": categories}))


def config(count, section=None, path=None, **more):
    data = {section: {"anno_path": path}} if section else {}
    return {"metric": "COCO", "num_classes": count, **data, **more}


@pytest.mark.parametrize("ending", ["pdparams", "safetensors"])
def test_names_lie_beside_the_weights_and_come_back(ending, tmp_path):
    weights = str(tmp_path / f"best.{ending}")
    write_names(weights, FRUIT)
    assert names_beside(weights) == (FRUIT, str(tmp_path / "best.names.yml"))
    assert names_beside(str(tmp_path / "other.pdparams")) == (None, None)


def test_a_run_writes_them_and_forgets_those_of_checkpoints_that_it_removes(tmp_path):
    for name in ("0", "1", "model_final"):
        save(str(tmp_path), name, {"w": [1.0]}, None, FRUIT)
    keep_newest(str(tmp_path), 1)
    assert sorted(path.name for path in tmp_path.glob("*" + SUFFIX)) == ["1.names.yml", "model_final.names.yml"]
    assert names_beside(str(tmp_path / "model_final.pdparams"))[0] == FRUIT


def test_the_record_of_a_run_serves_where_the_file_is_missing(tmp_path):
    write(tmp_path / "recipe.yml", "run: {class_names: [x, y]}\n")
    assert names_beside(str(tmp_path / "3.pdparams")) == (["x", "y"], str(tmp_path / "recipe.yml"))


def test_weights_name_the_classes_without_and_against_a_data_set(tmp_path, told):
    weights = str(tmp_path / "w.pdparams")
    write_names(weights, FRUIT)
    assert names_of(config(3), weights) == FRUIT and told == []
    swapped = coco(tmp_path / "swapped.json", [FRUIT[1], FRUIT[0], FRUIT[2]])
    assert names_of(config(3, "EvalDataset", swapped), weights) == FRUIT
    other = coco(tmp_path / "other.json", ["bolt", "nut", "washer"])
    assert names_of(config(3, "TestDataset", other), weights) == FRUIT
    assert "the same classes in another order" in told[0] and "and 'apple' in the other" in told[0]
    assert "other classes" in told[1] and len(told) == 2


@pytest.mark.parametrize("section", ["TestDataset", "EvalDataset", "TrainDataset"])
def test_any_data_set_of_the_config_names_the_classes(section, tmp_path, told):
    path = coco(tmp_path / "a.json", FRUIT)
    assert names_of(config(3, section, path), "w.pdparams") == FRUIT and told == []
    stale = {"TestDataset": {"anno_path": coco(tmp_path / "b.json", "pqrst")}}
    assert names_of(stale | config(3, section, path), "w.pdparams") == FRUIT


def test_without_any_source_classes_are_numbers_and_it_is_told(told):
    assert names_of(config(4), "w.pdparams") == ["class_0", "class_1", "class_2", "class_3"]
    assert names_of(config(80, metric="VOC"), "w.pdparams")[79] == "class_79"
    assert all("names of classes" in line and "class_names=" in line for line in told) and len(told) == 2


def test_names_of_fewer_categories_than_classes_are_filled_up(tmp_path, told):
    path = coco(tmp_path / "a.json", FRUIT)
    assert names_of(config(5, "EvalDataset", path), "w") == [*FRUIT, "class_3", "class_4"] and "3 of the" in told[0]
    trained = config(4, "TrainDataset", path)
    assert names_of_training(trained) == [*FRUIT, "class_3"]
    tell_unused(trained)
    tell_unused(config(3, "TrainDataset", path))
    tell_unused(trained | {"class_names": ["a", "b", "c", "d"]})
    assert len(told) == 2 and "num_classes: 4, and of the training set" in told[1] and "num_classes=3 fits" in told[1]
    write_names(weights := str(tmp_path / "w.pdparams"), [*FRUIT, "class_3"])
    tell_difference(config(4, "EvalDataset", path), weights)
    assert len(told) == 2, "what stands in for a name is no other class"
    tell_difference(config(4, "EvalDataset", coco(tmp_path / "b.json", ["bolt", "nut", "washer"])), weights)
    assert len(told) == 3


@pytest.mark.parametrize("count, metric", [(80, "COCO"), (20, "VOC")])
def test_ppdets_own_names_are_taken_for_as_many_classes_only(count, metric, told):
    assert names_of(config(count, metric=metric), "w.pdparams") is None and told == []
    assert names_of(config(count - 1, metric=metric), "w.pdparams") is not None


def test_a_number_of_names_that_does_not_fit_is_refused(tmp_path):
    weights = str(tmp_path / "w.pdparams")
    with pytest.raises(UserError, match="class_names has 2 names, the detector of -c num_classes: 3"):
        names_of(config(3, class_names=["a", "b"]), weights)
    with pytest.raises(UserError, match="has 3 categories, the detector of -c num_classes: 2"):
        names_of(config(2, "EvalDataset", coco(tmp_path / "a.json", FRUIT)), weights)
    write_names(weights, FRUIT)
    for act in (names_of, tell_difference):
        with pytest.raises(UserError, match=r"w\.names\.yml has 3 names, the detector of -c num_classes: 7"):
            act(config(7), weights)


def test_the_user_may_say_them_by_a_list_or_a_file(tmp_path):
    assert given_names(["a", 2]) == ["a", "2"]
    assert given_names(write(tmp_path / "n.txt", "a\n\nb c\n")) == ["a", "b c"]
    assert given_names(write(tmp_path / "data.yaml", "names: {0: a, 1: b}\n")) == ["a", "b"]
    for value in (3, [], [["a"]], {"a": 1}, str(tmp_path / "none.txt"), write(tmp_path / "x.yml", "name: [a]\n")):
        with pytest.raises(UserError, match="list of names|cannot be read"):
            given_names(value)


def test_a_run_tells_weights_of_other_names_that_it_starts_or_learns_from(tmp_path, told):
    for name, names in (("same", FRUIT), ("turned", FRUIT[::-1]), ("more", [*FRUIT, "x"])):
        write_names(str(tmp_path / f"{name}.pdparams"), names)
    paths = {name: str(tmp_path / f"{name}.pdparams") for name in ("same", "turned", "more")}
    teachers = {"teacher": TeacherSpec({}, paths["turned"], ""), "other": TeacherSpec({}, paths["same"], "")}
    tell_taught(Recipe("r", {"pretrain_weights": paths["more"]}, teachers), FRUIT)
    assert len(told) == 1 and told[0].startswith("teacher.pretrain_weights: ") and "another order" in told[0]


def test_auto_counts_the_names_where_a_detector_is_used_without_its_data(tmp_path):
    weights = str(tmp_path / "w.pdparams")
    write_names(weights, FRUIT)
    given = {"num_classes": "auto", "weights": weights, "train_annotations": "none.json", "dataset_dir": str(tmp_path)}
    expand_own_data(given)
    assert given["num_classes"] == 3
    with pytest.raises(UserError, match="no such annotation file"):
        expand_own_data(dict(given, num_classes="auto", weights="w2", train_annotations="none.json"))


@pytest.mark.parametrize("metric", ["COCO", "VOC"])
def test_ppdet_calls_classes_by_them(metric, tmp_path):
    class_names.names_in({})  # nothing; ppdet is imported below
    from ppkd.bridge.workspace import create, import_ppdet, scope

    import_ppdet()
    from ppdet.data.source.category import get_categories

    path = coco(tmp_path / "a.json", FRUIT, first=7)
    names = ["one", "two words", "three"]
    for expected, given in ((names, config(3)), (FRUIT, config(3, "EvalDataset", path))):
        with called(given | {"metric": metric}, expected) as changed, scope(changed):
            ids, found = get_categories(metric, create("TestDataset")().get_anno())
        assert list(found.values()) == expected
        first = 7 if expected is FRUIT and metric == "COCO" else 0
        assert ids == {i: i + first for i in range(3)}
    assert "TestDataset" not in given


def test_the_shipped_teacher_has_its_names():
    from ppkd.data.render import CLASSES
    from tests.conftest import ROOT

    path = str(ROOT / "ppkd" / "data" / "teacher_shapes.pdparams")
    assert names_beside(path) == (list(CLASSES), file_beside(path))
