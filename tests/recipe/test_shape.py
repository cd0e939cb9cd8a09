"""Values of another kind than ppkd reads are refused where a config is read, whatever reads them later."""

import pytest

from ppkd.bridge.ppdet_trainer import trainer_of
from ppkd.bridge.workspace import build_detector, scope
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged, clone, dump
from ppkd.recipe.recipe import Recipe, load_recipe
from ppkd.recipe.shape import check_shape
from ppkd.study.runs import open_runs
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS

STUDENT, SLIM = str(CONFIGS / "retinanet_tiny.yml"), str(CONFIGS / "retinanet_fgd.yml")


@pytest.fixture
def config(shapes):
    return clone(load_recipe(STUDENT, overrides=[f"dataset_dir={shapes}", "worker_num=0"]).student)


# Each ended in an error of Python's in one of the modules that read it, or in the midst of a run.
@pytest.mark.parametrize(
    "given, told",
    [
        ("TrainReader.sample_transforms=7", "TrainReader.sample_transforms has to be a list of transforms like"),
        ("EvalReader.sample_transforms=[7]", "EvalReader.sample_transforms has to be a list of transforms like"),
        ("TestReader.sample_transforms=[{Resize: 3}]", "TestReader.sample_transforms has to be a list of transforms"),
        ("TestReader.inputs_def=[3]", "TestReader.inputs_def has to be a mapping"),
        ("TrainReader.batch_transforms=[{NormalizeImage: {std: [1, 0, 1]}}]",
         "TrainReader.batch_transforms.0.NormalizeImage.std has to be three numbers, none of them 0, found"),
        ("EvalReader.batch_size=two", "EvalReader.batch_size has to be a number of images, found 'two'"),
        ("EvalReader.drop_last=[1]", "EvalReader.drop_last has to be true or false"),
        ("TrainReader=!COCODataSet {}", "TrainReader has to be a mapping without a tag, found !COCODataSet"),
        ("OptimizerBuilder=!COCODataSet {}", "OptimizerBuilder has to be a mapping without a tag, found !COCODataSet"),
        ("TrainDataset.data_fields=[gt_bbox]", "TrainDataset.data_fields has to be a list of names, image among them"),
        ("EvalDataset.data_fields=x", "EvalDataset.data_fields has to be a list of names, image among them"),
        ("TrainDataset.dataset_dir=[x]", "TrainDataset.dataset_dir has to be a path"),
        ("TestDataset.anno_path=3", "TestDataset.anno_path has to be a path"),
        ("dataset_dir=3", "dataset_dir has to be a path"),
        ("LearningRate.base_lr=x", "LearningRate.base_lr has to be a number, found 'x'"),
        ("LearningRate.schedulers=cosine", "LearningRate.schedulers has to be a list of mappings, found 'cosine'"),
        ("LearningRate.schedulers=[{name: CosineDecay, max_epochs: x}]",
         "LearningRate.schedulers.0.max_epochs has to be a number, found 'x'"),
        ("stages=[{epoch: 1, TrainReader: 7}]", "stages.0.TrainReader has to be a mapping"),
        ("RetinaNet=[1]", "RetinaNet has to be a mapping"),
        ("architecture=[RetinaNet]", "architecture has to be text"),
        ("ema_black_list=[1]", "ema_black_list has to be a list of names, found"),
        ("cycle_epoch=x", "cycle_epoch has to be a whole number"),
        ("init_loss_scaling=x", "init_loss_scaling has to be a number above 0"),
        ("unlabelled=''", "unlabelled has to be an image folder, a .txt list or a COCO .json file, found ''"),
        ("unlabelled={}", "unlabelled has to be an image folder"),
        ("FPN.extra_stage=1000000000000", "FPN.extra_stage is 1000000000000, and 1000000 is the most"),
    ],
)  # fmt: skip
def test_of_the_run(given, told):
    with pytest.raises(UserError, match=f"^-o: {told}"):
        load_recipe(STUDENT, overrides=["num_classes=3", given])


@pytest.mark.parametrize(
    "given, told",
    [
        ("TrainReader={sample_transforms: 7}", "TrainReader.sample_transforms has to be a list of transforms like"),
        ("num_classes=[1]", "num_classes has to be a number of classes or auto"),
        ("RetinaNet=!COCODataSet {}", "RetinaNet has to be a mapping without a tag"),
    ],
)
def test_of_a_teacher(given, told):
    with pytest.raises(UserError, match=rf"retinanet_fgd\.yml: {told}"):
        load_recipe(STUDENT, SLIM, ["num_classes=3", f"teacher.{given}"])


@pytest.mark.parametrize("setting", ["imgsz=64", "batch=4", "epochs=3"])
@pytest.mark.parametrize(
    "key, value",
    [("EvalReader", 7), ("TestReader", {"inputs_def": 7}), ("stages", [{"epoch": 1, "TrainReader": 7}])],
)
def test_before_single_settings_move_them(setting, key, value, tmp_path):
    """``imgsz`` looked into a reader that was none."""
    (tmp_path / "x.yml").write_text(dump({"_BASE_": [STUDENT], "num_classes": 3, "EvalReader": {}, key: value}))
    with pytest.raises(UserError, match=rf"x\.yml: {key}.*has to be"):
        load_recipe(str(tmp_path / "x.yml"), overrides=[setting])


def test_a_value_that_cannot_be_shown_whole_is_cut():
    with pytest.raises(UserError) as told:
        check_shape({"epoch": ["x" * 100_000]})
    assert len(str(told.value)) < 400


def test_null_stands_for_what_is_not_said():
    check_shape({"TrainReader": {"sample_transforms": None, "batch_size": 2}, "LearningRate": None, "stages": None})
    check_shape({"FCOSRAssigner": {"boundary": [[-1, 100_000_000.0]]}, "RPNHead": {"pre_nms_top_n": 12000}})


@pytest.mark.parametrize(
    "tag",
    [
        Tagged("PiecewiseDecay", args=[1, "x"]), Tagged("PiecewiseDecay", {"milestones": None}), Tagged("CosineDecay"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("section", ["TrainDataset", "EvalDataset"])
def test_a_tag_of_another_class_in_the_place_of_a_data_set(config, tag, section, tmp_path):
    """It was called as if it were one."""
    with pytest.raises(UserError, match=f"^{section} cannot be built from this config: "):
        begin(config | {section: tag}, tmp_path)


@pytest.mark.parametrize(
    "reader, told",
    [
        ({"sample_transforms": [{"Decode": None}]}, "EvalReader cannot be built from this config"),
        ({"sample_transforms": [{"Resize": {"odd": 1}}]}, "EvalReader cannot be built from this config: .*odd"),
    ],
)
def test_the_reader_of_the_evaluation_is_made_before_the_run(config, reader, told, tmp_path):
    """It was made after the first epoch."""
    with pytest.raises(UserError, match=told):
        begin(config | {"EvalReader": {"batch_size": 1, **reader}}, tmp_path)


@pytest.mark.parametrize("change", [lambda config: config.pop("epoch"), lambda config: config.update(epoch=None)])
def test_a_run_of_no_length_is_told(config, change, tmp_path):
    change(config)
    with pytest.raises(UserError, match="^epoch has to be a whole number from 0, found None"):
        begin(config, tmp_path)


def test_a_reader_that_an_evaluation_cannot_be_made_with_is_told(config):
    """It was an error of Python's in `ppkd eval`."""
    config["EvalReader"] = {"batch_size": 1, "sample_transforms": [{"Decode": None}]}
    with scope(config) as table, pytest.raises(UserError, match="^what the detector is to be evaluated .*TypeError"):
        settings = table.copy()
        settings["model"] = build_detector(config)
        trainer_of(settings, "eval")


def test_a_tag_whose_class_does_not_take_its_values_is_told(config, tmp_path):
    """Errors of another kind than wrong arguments came as they were."""
    schedule = Tagged("PiecewiseDecay", {"gamma": 10**400, "milestones": [1]}, where="x.yml:3")
    with pytest.raises(UserError, match=r"^x\.yml:3: !PiecewiseDecay: "):
        begin(config | {"LearningRate": {"base_lr": 0.1, "schedulers": [schedule]}}, tmp_path)


@pytest.mark.parametrize("given", ["teacher=3", "teacher.TrainReader.sample_transforms=7", "EvalReader.batch_size=x"])
def test_of_what_is_said_of_a_run_of_before(given, tmp_path):
    """``ppkd report -o``: it is merged into what the run recorded."""
    (tmp_path / "recipe.yml").write_text(
        "run: {architecture: RetinaNet, EvalReader: {batch_size: 1}}\n"
        "teacher: {architecture: RetinaNet, TrainReader: {sample_transforms: []}, pretrain_weights: x.pdparams}\n"
        "distill: {name: FGD}\n"
    )
    with pytest.raises(UserError, match="^-o.*(has to be|has fields to set)"):
        open_runs([str(tmp_path)], [given])


def begin(config, folder):
    config["save_dir"] = str(folder)
    with Trainer.open(Recipe("student", config, origin=dict.fromkeys(config, "x.yml")), validate=True):
        pass
