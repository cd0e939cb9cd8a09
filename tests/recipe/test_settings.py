"""Single settings: one number moves all that hangs on it, and nothing else."""

import pytest

from ppkd.bridge.sizes import reader_size
from ppkd.errors import UserError
from ppkd.exporting.static import image_shape
from ppkd.files.shipped import by_name, find_config
from ppkd.files.yaml_io import read_with_bases
from ppkd.recipe.recipe import load_recipe


def loaded(name, *given, slim=None):
    own = ["num_classes=3"] if name.endswith(("custom", "shapes")) else []
    return load_recipe(name, slim, [*own, *given])


def schedulers(recipe):
    return [dict(each) for each in recipe.student["LearningRate"]["schedulers"]]


def test_epochs_move_decay_and_warm_up():
    recipe = loaded("ppyoloe_plus_small_custom", "epochs=20")
    assert recipe.student["epoch"] == 20
    decay, warmup = schedulers(recipe)
    assert decay["max_epochs"] == 21, "one more than is run, as the file has it"
    assert warmup["epochs"] == 1, "a longer run needs no longer warm-up"
    assert "epochs 20: moved " in recipe.notes[-1] and "LearningRate" in recipe.notes[-1]


def test_a_published_schedule_keeps_its_shape():
    decay, warmup = schedulers(loaded("ppyoloe_plus_crn_s_80e_coco", "epochs=40"))
    assert decay["max_epochs"] == 48 and warmup["epochs"] == 2
    recipe = loaded("retinanet_r50_fpn_1x_coco", "epochs=6")
    steps, warmup = schedulers(recipe)
    assert steps["milestones"] == [4, 6] and warmup["steps"] == 250


def test_epochs_move_stages_augmentation_and_terms():
    recipe = loaded("rtmdet_s_300e_coco", "epochs=30", slim="rtmdet_m_distill_s")
    assert recipe.method.options["stop_epoch"] == 28
    flat = schedulers(recipe)[0]
    assert (flat["max_epochs"], flat["flat_epochs"]) == (30, 15)
    assert recipe.student["TrainReader"]["mosaic_epoch"] == 28
    stages = recipe.student.get("stages")
    assert stages is None or [stage["epoch"] for stage in stages] == [28]
    own = loaded("rtmdet_s_300e_coco", "epochs=30", "distill.stop_epoch=9", slim="rtmdet_m_distill_s")
    assert own.method.options["stop_epoch"] == 9, "what -o says is its own"


def test_terms_of_ones_own_move_too(tmp_path):
    (tmp_path / "slim.yml").write_text(
        "_BASE_: [ppyoloe_plus_teacher_custom.yml]\nslim: Distill\ndistill:\n  terms:\n"
        "    late: {student: 'neck[*]', loss: {name: pkd}, start_epoch: 4, stop_epoch: 6,\n"
        "           magnitude: {0: 20%, 5: 9%, 90%: 5%}}\n"
    )
    for given, expected in (((), (8, 12)), (("distill.terms.late.stop_epoch=5",), (8, 5))):
        recipe = loaded("ppyoloe_plus_small_custom", "epochs=16", *given, slim=str(tmp_path / "slim.yml"))
        term = recipe.method.options["terms"]["late"]
        assert (term["start_epoch"], term["stop_epoch"]) == expected
        assert term["magnitude"] == {0: "20%", 10: "9%", "90%": "5%"}


def test_what_lies_beyond_the_files_end_stays():
    recipe = loaded("ppyoloe_plus_small_custom", "epochs=3")
    assert recipe.student["PPYOLOEHead"]["static_assigner_epoch"] == 30


@pytest.mark.parametrize("name", ["ppyoloe_plus_small_custom", "picodet_s_320_coco_lcnet", "yolox_s_300e_coco"])
def test_imgsz_moves_readers_grid_and_export_together(name):
    recipe = loaded(name, "imgsz=416")
    config = recipe.student
    assert image_shape(config) in ([3, 416, 416], None)
    sizes = {reader: reader_size(config, reader) for reader in ("EvalReader", "TestReader")}
    assert set(sizes.values()) <= {(416, 416), None}
    if config.get("eval_size"):
        assert config["eval_size"] == [416, 416]
    batch = [step for step in config["TrainReader"]["batch_transforms"] if "BatchRandomResize" in step]
    sizes = batch[0]["BatchRandomResize"]["target_size"] if batch else 416
    sizes = sizes if isinstance(sizes, list) else [sizes]
    assert 416 in sizes and all(size % 32 == 0 for size in sizes)


def test_imgsz_of_images_that_keep_their_ratio_is_their_longer_side():
    config = loaded("retinanet_r50_fpn_2x_coco", "imgsz=640").student
    resize = next(step["Resize"] for step in config["EvalReader"]["sample_transforms"] if "Resize" in step)
    assert resize["target_size"] == [384, 640]


def test_a_shared_anchor_is_moved_once():
    config = loaded("ppyoloe_plus_small_custom", "imgsz=512").student
    assert config["eval_size"] == [512, 512] and image_shape(config) == [3, 512, 512]


def test_batch_moves_the_readers_and_masks_stay_image_by_image():
    config = loaded("ppyoloe_plus_small_custom", "batch=3").student
    assert (config["TrainReader"]["batch_size"], config["EvalReader"]["batch_size"]) == (3, 3)
    config = loaded("mask_rcnn_r50_fpn_1x_coco", "batch=3").student
    assert (config["TrainReader"]["batch_size"], config["EvalReader"]["batch_size"]) == (3, 1)


def test_a_file_may_have_them_and_the_command_goes_before_it(tmp_path):
    (tmp_path / "mine.yml").write_text(
        "_BASE_: [ppyoloe_plus_small_custom.yml]\nnum_classes: 3\nepochs: 4\nimgsz: 320\nbatch: 2\n"
    )
    recipe = load_recipe(str(tmp_path / "mine.yml"), None, ["epochs=6"])
    config = recipe.student
    assert (config["epoch"], config["eval_size"], config["TrainReader"]["batch_size"]) == (6, [320, 320], 2)
    assert not {"epochs", "imgsz", "batch"} & set(config)
    (tmp_path / "slim.yml").write_text(
        "_BASE_: [mine.yml]\npretrain_weights: null\nslim: Distill\nslim_method: PKD\n"
    )
    taught = load_recipe("ppyoloe_plus_small_custom", str(tmp_path / "slim.yml"), ["num_classes=3"])
    assert taught.student["eval_size"] == [256, 256] and taught.teachers["teacher"].config["eval_size"] == [320, 320]


def test_what_o_says_of_a_moved_key_is_its_own():
    recipe = loaded("ppyoloe_plus_small_custom", "epochs=20", "snapshot_epoch=7", "epoch=9")
    assert recipe.student["epoch"] == 9


@pytest.mark.parametrize("given, words", [
    ("epochs=0", "epochs has to be a whole number from 1, found 0"), ("batch=two", "batch has to be a whole number"),
    ("imgsz=true", "imgsz has to be a whole number"), ("imgsz=300", "imgsz has to be a multiple of 32.*: 288, not 300"),
    ("imgsz=[320,320]", "imgsz has to be a whole number"),
])  # fmt: skip
def test_a_setting_that_is_none_is_one_line(given, words):
    with pytest.raises(UserError, match=words):
        loaded("ppyoloe_plus_small_custom", given)


def test_a_config_without_sizes_is_told(tmp_path):
    (tmp_path / "x.yml").write_text("architecture: GFL\nnum_classes: 2\n")
    with pytest.raises(UserError, match="imgsz: neither EvalReader nor TestReader says a size"):
        load_recipe(str(tmp_path / "x.yml"), None, ["imgsz=320"])


def test_a_size_moves_with_the_shape_that_mmdetections_resizing_keeps():
    config = loaded("mmdet_gfl_r50_fpn_1x_coco", "imgsz=640").student
    sizes = [[step[name]["target_size"] for step in config[reader]["sample_transforms"] if name in step]
             for reader, name in (("TrainReader", "Resize"), ("EvalReader", "ResizeOfMMDet"))]  # fmt: skip
    assert sizes == [[[384, 640]], [[384, 640]]]


def test_the_settings_that_are_as_the_file_has_it_move_nothing():
    """All shipped detectors: their own length and size, given once more, change no key."""
    for name in by_name():
        _, layers = read_with_bases(find_config(name, "-c"))
        keys = {key for _, values in layers for key in values}
        if "slim" in keys or "EvalReader" not in keys or "architecture" not in keys or "epoch" not in keys:
            continue
        plain = loaded(name).student
        steps, names = plain["EvalReader"]["sample_transforms"], ("Resize", "ResizeOfMMDet")
        sizes = [step[name]["target_size"] for step in steps for name in names if name in step]
        longest = max(sizes[-1])
        same = [f"epochs={plain['epoch']}", *([f"imgsz={longest}"] if longest % 32 == 0 else [])]
        assert loaded(name, *same).student == plain, name
