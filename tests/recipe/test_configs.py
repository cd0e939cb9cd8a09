"""Every file under configs/: it loads, and what it describes can be planned or built."""

import re

import pytest

from benchmarks.methods.recipes import OF_FGD
from ppkd import methods
from ppkd.files.yaml_io import merge, read_with_bases
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yml"))
SLIM = [name for name in FILES if name.startswith("slim/")]
DETECTORS = [name for name in FILES if name not in SLIM]

# The students that the slim files are made for.
STUDENTS = {
    "slim/distill/faster_rcnn_from_cascade_r50vd_coco_fgd.yml": "faster_rcnn/faster_rcnn_r50_fpn_2x_coco.yml",
    "slim/distill/faster_rcnn_r101_fpn_coco_distill_fgd.yml": "faster_rcnn/faster_rcnn_r50_fpn_2x_coco.yml",
    "slim/distill/fcos_dcn_r50_fpn_coco_distill_fgd.yml": "fcos/fcos_r50_fpn_multiscale_2x_coco.yml",
    "slim/distill/gfl_ld_distill.yml": "gfl/gfl_slim_ld_r18vd_1x_coco.yml",
    "slim/distill/gfl_r101vd_fpn_coco_crosskd.yml": "gfl/gfl_r50_fpn_1x_coco.yml",
    "slim/distill/picodet_l_distill_s_rtmdet.yml": "picodet/picodet_s_320_coco_lcnet.yml",
    "slim/distill/ppyoloe_plus_distill_l_distill_m_rtmdet.yml": "ppyoloe/ppyoloe_plus_crn_m_80e_coco.yml",
    "slim/distill/retinanet_from_two_teachers_coco_pkd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/retinanet_resnet101_coco_distill_mgd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/gfl_r101vd_fpn_coco_distill_cwd.yml": "gfl/gfl_r50_fpn_1x_coco.yml",
    "slim/distill/gfl_r101vd_fpn_coco_distill_fgd.yml": "gfl/gfl_r50_fpn_1x_coco.yml",
    "slim/distill/mask_rcnn_r101vd_fpn_coco_distill_fgd.yml": "mask_rcnn/mask_rcnn_r50_fpn_2x_coco.yml",
    "slim/distill/picodet_from_gfl_r101vd_coco_cwd.yml": "picodet/picodet_s_320_coco_lcnet.yml",
    "slim/distill/picodet_dinov2.yml": "picodet/picodet_s_320_coco_lcnet.yml",
    "slim/distill/ppyoloe_plus_custom_dinov3.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_custom_fgd.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_custom_ppyoloe.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_custom_score_l2.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_distill_l_distill_m.yml": "ppyoloe/distill/ppyoloe_plus_crn_m_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_distill_m_distill_s.yml": "ppyoloe/distill/ppyoloe_plus_crn_s_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_distill_x_distill_l.yml": "ppyoloe/distill/ppyoloe_plus_crn_l_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_shapes_fgd.yml": "demo/ppyoloe_plus_student_shapes.yml",
    "slim/distill/retinanet_from_faster_rcnn_r101_coco_pkd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/retinanet_r50_coco_distill_matching.yml": "retinanet/retinanet_r18_fpn_1x_coco.yml",
    "slim/distill/retinanet_resnet101_coco_distill.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/retinanet_resnet101_coco_distill_cwd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/ppyoloe_plus_s_from_rtdetr_r50vd.yml": "ppyoloe/ppyoloe_plus_crn_s_80e_coco.yml",
    "slim/distill/rtdetr_r18vd_dinov3.yml": "rtdetr/rtdetr_r18vd_6x_coco.yml",
    "slim/distill/rtdetr_r50vd_distill_r18vd.yml": "rtdetr/rtdetr_r18vd_6x_coco.yml",
    "slim/distill/rtdetr_r101vd_distill_r50vd.yml": "rtdetr/rtdetr_r50vd_6x_coco.yml",
    "slim/distill/rtmdet_s_distill_tiny.yml": "rtmdet/rtmdet_tiny_300e_coco.yml",
    "slim/distill/rtmdet_m_distill_s.yml": "rtmdet/rtmdet_s_300e_coco.yml",
    "slim/distill/rtmdet_l_distill_m.yml": "rtmdet/rtmdet_m_300e_coco.yml",
    "slim/distill/rtmdet_x_distill_l.yml": "rtmdet/rtmdet_l_300e_coco.yml",
    "slim/distill/solov2_r101vd_fpn_coco_distill_fgd.yml": "solov2/solov2_r50_fpn_1x_coco.yml",
    "slim/distill/yolov3_mobilenet_v1_coco_distill.yml": "yolov3/yolov3_mobilenet_v1_270e_coco.yml",
    "slim/distill/yolox_l_coco_distill_fgd.yml": "yolox/yolox_m_300e_coco.yml",
}


# Classes of PaddleDetection's clones, which the wheel does not have.
OF_CLONES = ("DETRPostProcess", "HybridEncoder", "RTDETRTransformer")


# FGD's table and the other configs of its authors, by their names.
STUDENTS |= {f"slim/distill/fgd_{slim}.yml": f"mmdet/mmdet_{student}.yml" for slim, student in OF_FGD.items()}


def merged(name):
    config = {}
    for _, own in read_with_bases(str(CONFIGS / name))[1]:
        merge(config, own)
    return config


def load(student, slim=None):
    """A recipe of shipped files; the data sets, whose categories `auto` would count, are not there."""
    auto = merged(student).get("num_classes") == "auto"
    slim = slim and str(CONFIGS / slim)
    return load_recipe(str(CONFIGS / student), slim, ["num_classes=3"] if auto else [])


WITH_DETECTOR = [name for name in DETECTORS if "architecture" in merged(name)]
RUNS = [name for name in WITH_DETECTOR if "_base_/" not in name]


def test_nothing_is_left_out():
    assert set(STUDENTS) == set(SLIM), "every slim file needs its student in STUDENTS"
    assert len(WITH_DETECTOR) > 20 and len(RUNS) > 12


@pytest.mark.parametrize("name", sorted(set(FILES) - set(WITH_DETECTOR) - set(SLIM)))
def test_parts_of_configs_are_valid(name):
    assert merged(name)


@pytest.mark.parametrize("name", WITH_DETECTOR)
def test_a_detectors_file_loads(name):
    from ppkd.recipe.keys import check_top_level

    loaded = load(name)
    assert isinstance(loaded.student.get("num_classes", 80), int)
    # Files may hold what PaddleDetection does not know; these should not.
    check_top_level(loaded.student, OF_CLONES, name)


@pytest.mark.parametrize("name", RUNS)
def test_a_detectors_file_is_a_whole_run(name):
    config = load(name).student
    for key in ("epoch", "LearningRate", "OptimizerBuilder", "TrainDataset", "EvalDataset", "TestDataset",
                "TrainReader", "EvalReader", "TestReader", "metric", "save_dir", "snapshot_epoch"):  # fmt: skip
        assert config.get(key) is not None, key
    stem = name.rsplit("/", 1)[1].removesuffix(".yml")
    assert config["weights"] == f"output/{stem}/model_final", "where training puts them"


@pytest.mark.parametrize("name", RUNS)
def test_the_schedule_can_be_built(name):
    from ppkd.bridge.workspace import create, scope

    config = load(name).student
    with scope(config):
        rates = create("LearningRate", 2)
    assert rates.get_lr() < config["LearningRate"]["base_lr"], "it begins with a warm-up"


@pytest.mark.parametrize("name", SLIM)
def test_a_slim_file_loads_with_its_student(name):
    alone, loaded = load(STUDENTS[name]), load(STUDENTS[name], name)
    for teacher in loaded.teachers.values():
        assert teacher.config["architecture"]
        assert not teacher.detects or teacher.config["num_classes"] == loaded.student["num_classes"]
        # Links, or what tools/convert.py is told to write.
        assert teacher.weights is None or "://" in teacher.weights or teacher.weights.startswith("pretrained/")
    assert loaded.teachers and loaded.name == alone.name
    noted = {note.split(":")[0] for note in loaded.notes}
    assert {key for key in alone.student if alone.student[key] != loaded.student[key]} <= noted


@pytest.mark.parametrize("name", SLIM)
def test_a_slim_files_method_is_planned(name):
    assert methods.plan(load(STUDENTS[name], name).method).terms


# The authors' configs (https://github.com/yzd-v/FGD): temp, alpha, beta, gamma, lambda; levels; inheriting; clipping.
ONE_STAGE, TWO_STAGE = (0.5, 1e-3, 5e-4, 5e-4, 5e-6), (0.5, 5e-5, 2.5e-5, 5e-5, 5e-7)
FGD = {
    "retinanet_resnet101_coco_distill.yml": (ONE_STAGE, 5, True, 35),
    "gfl_r101vd_fpn_coco_distill_fgd.yml": (ONE_STAGE, 5, True, 35),
    "solov2_r101vd_fpn_coco_distill_fgd.yml": (ONE_STAGE, 4, True, 35),
    "fcos_dcn_r50_fpn_coco_distill_fgd.yml": ((0.8, 1.6e-3, 8e-4, 8e-4, 8e-6), 5, True, 35),
    "faster_rcnn_r101_fpn_coco_distill_fgd.yml": (TWO_STAGE, 4, True, 35),
    "mask_rcnn_r101vd_fpn_coco_distill_fgd.yml": (TWO_STAGE, 4, True, 35),
    "faster_rcnn_from_cascade_r50vd_coco_fgd.yml": (TWO_STAGE, 4, False, 35),
    "yolox_l_coco_distill_fgd.yml": ((0.5, 2e-3, 1e-3, 1e-3, 1e-5), 3, False, None),
}
POINTS = (1.6e-3, 8e-4, 8e-4, 8e-6)
for _name in OF_FGD:
    _two = "rcnn" in _name
    _weights = TWO_STAGE if _two else (0.8, *POINTS) if "fcos" in _name else (0.5, *POINTS)
    _weights = _weights if _two or "fcos" in _name or "reppoints" in _name else ONE_STAGE
    _levels = 4 if _two or "solo" in _name else 5
    FGD[f"fgd_{_name}.yml"] = (_weights, _levels, "cascade" not in _name, 35)


@pytest.mark.parametrize("name", FGD)
def test_a_recipe_of_fgds_table_has_the_authors_numbers(name):
    weights, levels, inherits, clip = FGD[name]
    slim = f"slim/distill/{name}"
    alone, loaded = load(STUDENTS[slim]), load(STUDENTS[slim], slim)
    planned = methods.plan(loaded.method)
    (term,) = planned.terms
    assert tuple(term.loss[key] for key in ("temp", "alpha", "beta", "gamma", "lambda_")) == weights
    assert term.max_levels == levels and bool(planned.inherit) == inherits
    optimizer = dict(loaded.student["OptimizerBuilder"])
    assert optimizer.pop("clip_grad_by_norm", None) == clip
    plain = {key: value for key, value in alone.student["OptimizerBuilder"].items() if key != "clip_grad_by_norm"}
    assert optimizer == plain, "nothing but the clipping is the method's; RepPoints has it alone, too"


def transforms(config):
    """All transforms of the train reader: name -> parameters."""
    reader = config["TrainReader"]
    both = [*reader["sample_transforms"], *reader.get("batch_transforms", ())]
    return {name: params for one in both for name, params in one.items()}


@pytest.mark.parametrize("name", RUNS)
def test_what_the_reader_prepares_is_what_the_detector_takes(name):
    config = load(name).student
    used = transforms(config)
    outlines = config["architecture"] in ("MaskRCNN", "SOLO", "SOLOv2")
    outlines |= bool(config.get("CascadeRCNN", {}).get("mask_head"))
    assert ("gt_poly" in config["TrainDataset"].get("data_fields", ())) == outlines
    if "Gt2Solov2Target" in used:
        assert used["Gt2Solov2Target"]["num_grids"] == config["SOLOv2Head"]["num_grids"]
    if "Gt2SOLOTarget" in used:
        assert used["Gt2SOLOTarget"]["num_grids"] == config["SOLOHead"]["num_grids"]
    if "Gt2FCOSTarget" in used:
        target, head = used["Gt2FCOSTarget"], config.get("FCOSHeadOfMMDet") or config["FCOSHead"]
        assert target["downsample_ratios"] == head["fpn_stride"]
        assert len(target["object_sizes_boundary"]) == len(head["fpn_stride"]) - 1
        assert target["norm_reg_targets"] == head["norm_reg_targets"]
    if "Gt2GFLTarget" in used:
        assert used["Gt2GFLTarget"]["downsample_ratios"] == config["GFLHead"]["fpn_stride"]
    if "eval_size" in config:
        (size,) = [one["Resize"]["target_size"] for one in config["EvalReader"]["sample_transforms"] if "Resize" in one]
        assert size == config["eval_size"] == config["TestReader"]["inputs_def"]["image_shape"][-2:]


def count(model):
    """Parameters without batch norm's running statistics, as torchvision and PaddleDetection's tables count them."""
    statistics = ("_mean", "_variance")
    return sum(int(p.size) for name, p in model.named_parameters() if not name.endswith(statistics))


def test_retinanet_r50_has_the_size_that_its_paper_implies():
    from ppkd.bridge.workspace import build_detector

    def conv(inputs, outputs, size):
        return inputs * outputs * size * size + outputs

    resnet50 = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's, without the classifier
    fpn = sum(conv(c, 256, 1) for c in (512, 1024, 2048)) + 5 * conv(256, 256, 3)
    head = 8 * conv(256, 256, 3) + conv(256, 9 * 80, 3) + conv(256, 9 * 4, 3)
    assert count(build_detector(load("retinanet/retinanet_r50_fpn_2x_coco.yml").student)) == resnet50 + fpn + head


# torchvision's numbers for its models: with 91 classes, one of them the background, and without the 53,120 weights of
# its frozen batch norms. The FPN and heads of the three are PaddleDetection's, but for the classes.
NORMS = 53_120
BOXES = 10 * (1024 + 1) + (91 - 80) * 4 * (1024 + 1)


@pytest.mark.parametrize(
    "name, published",
    [
        ("faster_rcnn/faster_rcnn_r50_fpn_2x_coco.yml", 41_755_286 - BOXES),
        ("mask_rcnn/mask_rcnn_r50_fpn_2x_coco.yml", 44_401_393 - BOXES - 11 * (256 + 1)),
        # PaddleDetection multiplies each level's distances by a number of its own.
        ("fcos/fcos_r50_fpn_1x_coco.yml", 32_269_600 - 11 * (256 * 9 + 1) + 5),
    ],
)
def test_detectors_that_torchvision_has_too_are_as_large(name, published):
    from ppkd.bridge.workspace import build_detector

    assert count(build_detector(load(name).student)) == published + NORMS


@pytest.mark.parametrize(
    "name, millions",
    [
        ("yolox/yolox_s_300e_coco.yml", 9.0),
        ("yolox/yolox_m_300e_coco.yml", 25.3),
        ("picodet/picodet_s_320_coco_lcnet.yml", 1.18),
        ("rtmdet/rtmdet_tiny_300e_coco.yml", 4.88),
        ("rtmdet/rtmdet_s_300e_coco.yml", 8.89),
        ("rtmdet/rtmdet_m_300e_coco.yml", 24.71),
    ],
)
def test_small_detectors_have_about_their_published_sizes(name, millions):
    """YOLOX's are its paper's, PicoDet's is PaddleDetection's, RTMDet's are MMYOLO's (tiny's is printed as 4.8)."""
    from ppkd.bridge.workspace import build_detector

    assert count(build_detector(load(name).student)) / 1e6 == pytest.approx(millions, rel=0.01)


def test_ppyoloe_plus_s_has_its_published_size():
    """7.93 million, counted after each pair of convolutions of the training form has become one."""
    from ppkd.bridge.workspace import build_detector

    model = build_detector(load("ppyoloe/ppyoloe_plus_crn_s_80e_coco.yml").student)
    for layer in model.sublayers():
        if hasattr(layer, "convert_to_deploy"):
            layer.convert_to_deploy()
    assert round(count(model) / 1e6, 2) == 7.93


@pytest.mark.parametrize("name", [name for name in FILES if "images a step" in (CONFIGS / name).read_text()])
def test_the_number_of_images_that_a_rate_is_for_is_said_to_the_run_as_well(name):
    text = (CONFIGS / name).read_text()
    said = re.search(r"(\d+) images a step", text)
    assert merged(name)["total_batch_size"] == int(said[1])
