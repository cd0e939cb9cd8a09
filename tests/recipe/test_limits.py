"""Numbers beyond all measure are refused before anything of that size is made; large ones in use are not."""

import pytest

from ppkd.errors import UserError
from ppkd.recipe import load_recipe
from ppkd.recipe.limits import check_limits
from ppkd.training.learning_rate import learning_rate

READER = {"sample_transforms": [{"Decode": {}}, {"Resize": {"target_size": [64, 64]}}]}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("num_classes=1000000000", "num_classes"),
        ("worker_num=100000", "worker_num"),
        ("TrainReader.batch_transforms=[{PadBatch: {pad_to_stride: 1000000}}]", "PadBatch.pad_to_stride"),
        ("EvalReader.sample_transforms=[{Resize: {target_size: [64, 100000]}}]", "Resize.target_size"),
        ("TrainReader.batch_transforms=[{BatchRandomResize: {target_size: [64, 5000000]}}]", "target_size"),
        ("TestReader.inputs_def.image_shape=[3, 1000000, 64]", "image_shape"),
        ("TestReader.batch_size=1000000000", "TestReader.batch_size"),
        ("TrainReader.sample_transforms=[{RandomExpand: {ratio: 1.0e+30}}]", "RandomExpand.ratio"),
    ],
)
def test_a_number_beyond_all_measure_is_refused_with_its_key(given, key):
    with pytest.raises(UserError, match=f"-o: .*{key} is .* is the most"):
        load_recipe("tests/configs/ppyoloe_tiny.yml", overrides=["num_classes=3", given])


def test_a_teachers_numbers_are_looked_at_as_well():
    with pytest.raises(UserError, match=r"retinanet_fgd.yml: num_classes is 1000000000"):
        load_recipe("tests/configs/retinanet_tiny.yml", "tests/configs/retinanet_fgd.yml",
                    ["num_classes=3", "teacher.num_classes=1000000000"])  # fmt: skip


def test_large_numbers_that_are_in_use_are_taken():
    large = {**READER, "batch_size": 4096, "batch_transforms": [{"PadBatch": {"pad_to_stride": 128}}]}
    check_limits({"num_classes": 22000, "worker_num": 64, "TrainReader": large, "epoch": 1_000_000})


@pytest.mark.parametrize(("name", "key"), [("CosineDecay", "max_epochs"), ("LinearWarmup", "steps")])
def test_learning_rates_that_no_memory_holds_are_refused(name, key):
    schedulers = [{"name": "CosineDecay", "max_epochs": 3}, {"name": "LinearWarmup", "steps": 5}]
    next(each for each in schedulers if each["name"] == name)[key] = 1_000_000_000
    with pytest.raises(UserError, match=f"LearningRate.schedulers: {key} is 1000000000"):
        learning_rate({"LearningRate": {"schedulers": schedulers}}, 10)
