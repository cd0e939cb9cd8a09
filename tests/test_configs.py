"""Every file under configs/: it loads, and what it describes can be planned or built."""

import pytest

from ppkd import methods
from ppkd.recipe import load_recipe
from ppkd.yaml_io import merge, read_with_bases
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
    "slim/distill/gfl_r101vd_fpn_coco_distill_cwd.yml": "gfl/gfl_r50_fpn_1x_coco.yml",
    "slim/distill/gfl_r101vd_fpn_coco_distill_fgd.yml": "gfl/gfl_r50_fpn_1x_coco.yml",
    "slim/distill/mask_rcnn_r101vd_fpn_coco_distill_fgd.yml": "mask_rcnn/mask_rcnn_r50_fpn_2x_coco.yml",
    "slim/distill/picodet_from_gfl_r101vd_coco_cwd.yml": "picodet/picodet_s_320_coco_lcnet.yml",
    "slim/distill/ppyoloe_plus_custom_fgd.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_custom_ppyoloe.yml": "custom/ppyoloe_plus_tiny_custom.yml",
    "slim/distill/ppyoloe_plus_distill_l_distill_m.yml": "ppyoloe/distill/ppyoloe_plus_crn_m_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_distill_m_distill_s.yml": "ppyoloe/distill/ppyoloe_plus_crn_s_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_distill_x_distill_l.yml": "ppyoloe/distill/ppyoloe_plus_crn_l_80e_coco_distill.yml",
    "slim/distill/ppyoloe_plus_shapes_fgd.yml": "demo/ppyoloe_plus_student_shapes.yml",
    "slim/distill/retinanet_from_faster_rcnn_r101_coco_pkd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/retinanet_resnet101_coco_distill.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/retinanet_resnet101_coco_distill_cwd.yml": "retinanet/retinanet_r50_fpn_2x_coco.yml",
    "slim/distill/solov2_r101vd_fpn_coco_distill_fgd.yml": "solov2/solov2_r50_fpn_1x_coco.yml",
    "slim/distill/yolov3_mobilenet_v1_coco_distill.yml": "yolov3/yolov3_mobilenet_v1_270e_coco.yml",
    "slim/distill/yolox_l_coco_distill_fgd.yml": "yolox/yolox_m_300e_coco.yml",
}


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
    from ppkd.keys import check_top_level

    loaded = load(name)
    assert isinstance(loaded.student.get("num_classes", 80), int)
    # Files may hold what PaddleDetection does not know; these should not.
    check_top_level(loaded.student, (), name)


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
    from ppkd.workspace import create, scope

    config = load(name).student
    with scope(config):
        rates = create("LearningRate", 2)
    assert rates.get_lr() < config["LearningRate"]["base_lr"], "it begins with a warm-up"


@pytest.mark.parametrize("name", SLIM)
def test_a_slim_file_loads_with_its_student(name):
    alone, loaded = load(STUDENTS[name]), load(STUDENTS[name], name)
    teacher = loaded.teachers["teacher"]
    assert teacher.config["architecture"] and teacher.config["num_classes"] == loaded.student["num_classes"]
    assert teacher.weights is None or "://" in teacher.weights
    assert loaded.name == alone.name
    noted = {note.split(":")[0] for note in loaded.notes}
    assert {key for key in alone.student if alone.student[key] != loaded.student[key]} <= noted


@pytest.mark.parametrize("name", SLIM)
def test_a_slim_files_method_is_planned(name):
    assert methods.plan(load(STUDENTS[name], name).method).terms


def count(model):
    """Parameters without batch norm's running statistics, as torchvision and PaddleDetection's tables count them."""
    statistics = ("_mean", "_variance")
    return sum(int(p.size) for name, p in model.named_parameters() if not name.endswith(statistics))


def test_retinanet_r50_has_the_size_that_its_paper_implies():
    from ppkd.workspace import build_detector

    def conv(inputs, outputs, size):
        return inputs * outputs * size * size + outputs

    resnet50 = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's, without the classifier
    fpn = sum(conv(c, 256, 1) for c in (512, 1024, 2048)) + 5 * conv(256, 256, 3)
    head = 8 * conv(256, 256, 3) + conv(256, 9 * 80, 3) + conv(256, 9 * 4, 3)
    assert count(build_detector(load("retinanet/retinanet_r50_fpn_2x_coco.yml").student)) == resnet50 + fpn + head


def test_ppyoloe_plus_s_has_its_published_size():
    """7.93 million, counted after each pair of convolutions of the training form has become one."""
    from ppkd.workspace import build_detector

    model = build_detector(load("ppyoloe/ppyoloe_plus_crn_s_80e_coco.yml").student)
    for layer in model.sublayers():
        if hasattr(layer, "convert_to_deploy"):
            layer.convert_to_deploy()
    assert round(count(model) / 1e6, 2) == 7.93
