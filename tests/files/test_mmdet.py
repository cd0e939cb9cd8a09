"""Detectors of MMDetection and distillers' checkpoints of them: names, orders, and what does not fit."""

import numpy as np
import pytest

from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.files import mmdet
from ppkd.files.beside import adapt, write_beside
from ppkd.files.class_names import names_beside
from ppkd.files.fit import compare, misfit
from ppkd.files.foreign import _part_of, look, take_weights
from ppkd.files.mmdet_former import of_today
from ppkd.files.mmdet_heads import unlike
from ppkd.files.mmdet_settings import Told, settings
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT, SHARED

FOLDER = SHARED / "golden" / "mmdet"
there = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


def build(config, *overrides):
    path = str(ROOT / "configs" / f"{config}.yml")
    return build_detector(load_recipe(path, overrides=["pretrain_weights=null", *overrides]).student)


@there
@pytest.mark.parametrize(
    "name, said",
    [
        ("retinanet_r50", "RetinaNet .* with 3 classes on a ResNet or ResNeXt of 50 layers, but the config is of GFL"),
        ("solo_r50", "SOLO of MMDetection with 3 classes, but the config is of GFL; begin with configs/solo/"),
        ("gfl_r50", r"with \[1, 1, 1, 1\] blocks in its stages, but the config has \[3, 4, 6, 3\]: no ResNet of ppdet"),
    ],
)
def test_another_architecture_or_depth_is_told_in_a_line(name, said):
    with pytest.raises(UserError, match=said) as error:
        take_weights(str(FOLDER / f"{name}.pth"), build("gfl/gfl_r50_fpn_1x_coco", "num_classes=3"))
    assert "\n" not in str(error.value)


def fcos(blocks=(3, 4, 6, 3), classes=3, groups=1):
    """Tensors that tell what an FCOS of MMDetection is, and no others."""
    state = {
        f"backbone.layer{s}.{b}.conv2.weight": np.zeros([64, 64 // groups, 1, 1], "float32")
        for s, count in enumerate(blocks, 1)
        for b in range(count)
    }
    state["backbone.conv1.weight"] = np.zeros([64, 3, 7, 7], "float32")
    state["backbone.layer1.0.conv3.weight"] = np.zeros([256, 64, 1, 1], "float32")
    state["bbox_head.conv_cls.weight"] = np.zeros([classes, 256, 3, 3], "float32")
    state["bbox_head.cls_convs.3.conv.weight"] = state["bbox_head.cls_convs.0.gn.weight"] = np.zeros([256], "float32")
    state["bbox_head.conv_centerness.weight"] = np.zeros([1, 256, 3, 3], "float32")
    state["neck.fpn_convs.3.conv.weight"] = np.zeros([256, 256, 3, 3], "float32")
    state["neck.lateral_convs.2.conv.weight"] = np.zeros([256, 2048, 1, 1], "float32")
    return state


@pytest.fixture(scope="module")
def model():
    return build("fcos/fcos_r50_fpn_1x_coco", "num_classes=3")


@pytest.mark.parametrize(
    "own, said",
    [
        ({"classes": 20}, "FCOS .* with 20 classes .* of 50 layers, but the config has 3 .* -o num_classes=20$"),
        ({"blocks": (3, 4, 23, 3)}, r"of 101 layers with \[3, 4, 23, 3\] blocks .* 6, 3\]: .*ResNet.depth=101$"),
        ({"blocks": (2, 2, 2, 2)}, r"of 18 layers with \[2, 2, 2, 2\] blocks .*: give -o ResNet.depth=18$"),
    ],
)
def test_another_number_of_classes_or_layers_is_told_with_what_would_fit(model, own, said):
    with pytest.raises(UserError, match=said):
        mmdet.take(fcos(**own), model, 3)


def told(text="", names="", version=""):
    return Told(text, names, version, None)


def test_the_style_of_a_resnet_is_that_of_its_config_or_else_of_its_name():
    caffe = told(names="fcos_r101_caffe_fpn_gn-head-511424d6.pth")
    assert caffe.caffe and caffe.blue_first and not told(names="fcos_r50_fpn").caffe
    text = "backbone=dict(style='pytorch')\nimg_norm_cfg=dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)"
    said = told(text, "a_caffe_name")
    assert not said.caffe and not said.blue_first
    assert said.normalisation("FCOS") == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    swapped = told("style='caffe', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False")
    assert swapped.blue_first and swapped.normalisation("FCOS") == ([3.0, 2.0, 1.0], [6.0, 5.0, 4.0])
    # Of images that are red first: Detectron's means, which FCOS has with more digits.
    assert caffe.normalisation("FCOS") == ([122.7717, 115.9465, 102.9801], [1.0, 1.0, 1.0])
    assert caffe.normalisation("RetinaNet") == ([123.675, 116.28, 103.53], [1.0, 1.0, 1.0])
    assert not told(names="model.pth").style_is_known and caffe.style_is_known


def test_what_is_found_goes_by_the_config_of_the_checkpoint():
    text = "test_cfg=dict(nms_pre=1000, score_thr=0.02, nms=dict(type='nms', iou_threshold=0.45), max_per_img=50)"
    assert told(text).choice("FCOS") == (0.02, 0.45, 50)
    assert told().choice("GFL") == (0.05, 0.6, 100) and told().choice("YOLOX") == (0.01, 0.65, -1)


# As mmengine writes it: keys by the alphabet, a number a line, commas at the end.
OF_MMENGINE = """
model = dict(
    backbone=dict(depth=50, out_indices=(0, 1,), style='caffe', type='ResNet'),
    data_preprocessor=dict(
        bgr_to_rgb=False,
        mean=[
            1.0,
            2.0,
            3.0,
        ],
        std=[
            4.0,
            5.0,
            6.0,
        ],
        type='DetDataPreprocessor'),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[0.5, 1.0, 2.0,],
            scales=[4, 8,],
            strides=[4, 8, 16, 32, 64,],
            type='AnchorGenerator')),
    roi_head=dict(
        bbox_roi_extractor=dict(
            finest_scale=28,
            roi_layer=dict(aligned=False, output_size=7, sampling_ratio=2, type='RoIAlign'))),
    test_cfg=dict(
        rcnn=dict(
            max_per_img=50,
            nms=dict(iou_threshold=0.45, type='soft_nms'),
            score_thr=0.02),
        rpn=dict(
            max_per_img=300,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.6, type='nms'),
            nms_pre=2000)),
    type='FasterRCNN')
test_cfg = dict(type='TestLoop')
"""


def test_a_text_in_the_order_of_the_alphabet_says_the_same():
    notes = told(OF_MMENGINE, "r50")
    assert notes.caffe and notes.blue_first and notes.style_is_known
    assert notes.normalisation("FasterRCNN") == ([3.0, 2.0, 1.0], [6.0, 5.0, 4.0])
    assert notes.choice("FasterRCNN") == (0.02, 0.45, 50)
    state = {"backbone.layer1.0.conv2.weight": np.zeros([64, 64, 3, 3])}
    found = settings("FasterRCNN", state, notes)
    wanted = {"min_size": 0, "nms_thresh": 0.6, "pre_nms_top_n": 2000, "post_nms_top_n": 300}
    assert found["RPNHeadOfMMDet"]["test_proposal"] == wanted
    assert found["RPNHeadOfMMDet"]["anchor_generator"]["anchor_sizes"][:2] == [[16, 32], [32, 64]]
    assert found["BBoxHead"]["roi_extractor"] == {"sampling_ratio": 2, "aligned": False, "canonical_size": 112}
    assert unlike(notes, "FasterRCNN") == ["its detections are chosen by soft_nms"]
    usual = told(OF_MMENGINE.replace("scales=[4, 8,]", "scales=[8]"))
    assert "anchor_generator" not in settings("FasterRCNN", state, usual)["RPNHeadOfMMDet"]


def test_images_are_evaluated_at_the_size_of_the_text():
    config = load_recipe(str(ROOT / "configs/yolox/yolox_s_300e_coco.yml")).student
    state = {"bbox_head.multi_level_conv_cls.0.weight": np.zeros([80, 4, 1, 1])}
    text = "test_pipeline = [dict(type='Load'), dict(keep_ratio=True, scale=(416, 416,), type='Resize')]"
    adapt(config, state, told(text))
    for reader in (config["EvalReader"], config["TestReader"]):
        steps = {name: given for step in reader["sample_transforms"] for name, given in step.items()}
        assert steps["ResizeOfMMDet"] == {"target_size": [416, 416]}
        assert steps["Pad"] == {"size": [416, 416], "fill_value": [114.0] * 3}
    assert config["TestReader"]["inputs_def"] == {"image_shape": [3, 416, 416]}
    former = "test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(1000, 600), transforms=[dict(type='Resize')])]"
    assert told(former).size == [600, 1000] and told("test_pipeline = [dict(scale='x')]").size is None


def test_a_text_of_several_files_is_what_the_last_one_makes_of_it():
    text = """/home/x/configs/base.py
norm = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
model = dict(backbone=dict(type='ResNet', style='pytorch'), bbox_head=dict(norm_on_bbox=False))
pipeline = [dict(type='Normalize', **norm), dict(type=what)]
/home/x/configs/fcos.py
_base_ = './base.py'
model = dict(backbone=dict(style='caffe'), bbox_head=dict(norm_on_bbox=True), test_cfg=dict(score_thr=1 / 20))"""
    notes = told(text)
    assert notes.model["backbone"] == {"type": "ResNet", "style": "caffe"} and notes.says("norm_on_bbox")
    assert notes.normalisation("FCOS")[0] == [1.0, 2.0, 3.0] and notes.choice("FCOS") == (0.05, 0.5, 100)


def test_of_a_distillation_the_text_of_the_part_counts():
    both = "model = dict(architecture=dict(backbone=dict(style='pytorch')), teacher=dict(backbone=dict(style='caffe')))"
    assert not told(both).caffe and Told(both, "", "", None, "teacher").caffe


@pytest.mark.parametrize(
    "text",
    [
        "a = [" * 5000, "x = " + "-" * 9000 + "1", "a = dict(" * 90, "a = 1 / 0",
        "test_pipeline = 3\nmodel = dict(backbone=1, test_cfg=dict(score_thr='x', nms=3))", "a = 'x\0y",
        "model = 3\nimg_norm_cfg = 4",
        "a = [1, 2]\n" + "".join(f"a{k + 1} = [a{k}, a{k}, a{k}]\n" for k in range(60)).replace("a0,", "a,"),
        "a = dict(b=1)\n" + "a = dict(b=a, c=a)\n" * 60, "model = dict(backbone=[], test_cfg=7)\nmean = [1,]",
    ],
)  # fmt: skip
def test_a_text_that_is_no_config_says_nothing(text):
    notes = told(text)
    assert notes.choice("GFL") == (0.05, 0.6, 100) and not notes.caffe
    assert notes.normalisation("GFL")[0] == [123.675, 116.28, 103.53]


def test_heads_and_necks_have_the_norms_and_channels_of_the_tensors():
    state = {
        "backbone.layer1.0.conv2.weight": np.zeros([64, 64, 3, 3]), "bbox_head.cls_convs.2.conv.bias": np.zeros(128),
        "bbox_head.cls_convs.0.conv.weight": np.zeros([128, 256, 3, 3]),
        "bbox_head.reppoints_cls_conv.weight": np.zeros([96, 128, 3, 3]),
        "neck.lateral_convs.0.conv.bias": np.zeros(256),
    }  # fmt: skip
    found = settings("RepPoints", state, told())
    head = found["RepPointsHead"]
    assert found["FPN"]["norm_type"] is None and head["norm_groups"] == 0 and head["stacked_convs"] == 3
    assert (head["feat_channels"], head["point_feat_channels"]) == (128, 96)
    state |= dict.fromkeys(["bbox_head.cls_convs.0.gn.weight", "neck.lateral_convs.0.gn.weight"], np.zeros(128))
    text = "model = dict(backbone=dict(), bbox_head=dict(norm_cfg=dict(num_groups=8)))"
    found = settings("RepPoints", state, told(text))
    assert found["FPN"]["norm_type"] == "gn" and found["RepPointsHead"]["norm_groups"] == 8


def test_solo_has_the_width_that_its_authors_gave_it():
    config = load_recipe(str(ROOT / "configs/solo/solo_r50_fpn_1x_coco.yml")).student
    assert config["SOLOHead"]["feat_channels"] == 256


def test_weights_that_take_blue_first_are_turned_round(model):
    state = fcos()
    state["backbone.conv1.weight"][:, 0] = 7
    names = [True, False]
    turned, kept = (mmdet.take(state, model, 3, blue)[1]["backbone.conv1.conv1.conv.weight"] for blue in names)
    assert (turned[:, 2] == 7).all() and (kept[:, 0] == 7).all() and not turned[:, 0].any()


def test_a_config_says_what_the_checkpoint_needs():
    config = load_recipe(str(ROOT / "configs/fcos/fcos_r50_fpn_1x_coco.yml"), overrides=["num_classes=3"]).student
    notes = told(names="fcos_center-normbbox_r50_caffe_fpn_gn-head")
    adapt(config, fcos(groups=32), notes, {"FCOSHeadOfMMDet": {"nms": {"keep_top_k": 7}}, "ResNet": {"depth": 101}})
    assert config["architecture"] == "FCOSOfMMDet" and config["FCOSOfMMDet"]["fcos_head"] == "FCOSHeadOfMMDet"
    head, body = config["FCOSHeadOfMMDet"], config["ResNet"]
    assert head["norm_reg_targets"] and head["centerness_on_reg"] and head["fcos_feat"]["num_convs"] == 4
    assert head["nms"] == {"name": "MultiClassNMS", "nms_top_k": -1, "keep_top_k": 7, "score_threshold": 0.05,
                           "nms_threshold": 0.5}  # fmt: skip
    assert (body["variant"], body["groups"], body["base_width"], body["depth"]) == ("a", 32, 2, 101)
    assert config["FPN"]["use_c5"] is False and config["FPN"]["relu_before_extra_convs"] is True
    steps = config["EvalReader"]["sample_transforms"]
    assert [next(iter(step)) for step in steps] == ["Decode", "ResizeOfMMDet", "NormalizeImage", "Permute"]
    assert steps[2]["NormalizeImage"] == {"is_scale": False, "mean": [122.7717, 115.9465, 102.9801], "std": [1.0] * 3}
    with pytest.raises(UserError, match="FCOS of MMDetection .* but the config is of GFL; begin with configs/fcos/"):
        adapt({"architecture": "GFL"}, fcos(), notes)


def test_the_background_of_mmdetection_1_goes_to_the_end():
    state = {"roi_head.bbox_head.fc_cls.bias": np.arange(4.0), "roi_head.bbox_head.fc_reg.bias": np.arange(16.0)}
    found = mmdet._background_last(state)
    assert found["roi_head.bbox_head.fc_cls.bias"].tolist() == [1, 2, 3, 0]
    assert found["roi_head.bbox_head.fc_reg.bias"].tolist() == list(range(4, 16))
    assert mmdet._background_last(found).keys() == found.keys()
    assert len(mmdet._background_last(found)["roi_head.bbox_head.fc_reg.bias"]) == 12, "of MMDetection 2 it stays"


class Held:
    def __init__(self, array):
        self.array = np.asarray(array)

    def numpy(self):
        return self.array


def test_files_of_former_versions_have_the_names_of_today():
    rows = np.arange(4.0)
    state = {
        "bbox_head.0.fc_cls.weight": Held(rows), "bbox_head.0.fc_reg.bias": Held(rows),
        "bbox_head.1.fc_reg.bias": Held(np.arange(16.0)), "mask_head.0.conv_logits.bias": Held(rows),
        "rpn_head.rpn_cls.bias": Held(rows), "ema_backbone_conv1_weight": Held(rows),
    }  # fmt: skip
    found, left = of_today(state)
    assert left == {"ema": 1}
    assert {name.removeprefix("roi_head."): tensor.numpy().tolist() for name, tensor in found.items()} == {
        "bbox_head.0.fc_cls.weight": [1, 2, 3, 0], "bbox_head.0.fc_reg.bias": [0, 1, 2, 3],
        "bbox_head.1.fc_reg.bias": list(range(4, 16)), "mask_head.0.conv_logits.bias": [1, 2, 3],
        "rpn_head.rpn_cls.bias": [0, 1, 2, 3],
    }  # fmt: skip
    assert mmdet.architecture_of(found) == "CascadeRCNN"
    today = {"roi_head.bbox_head.fc_cls.weight": Held(rows), "bbox_head.retina_cls.bias": Held(rows)}
    assert of_today(today) == (today, {})


@pytest.mark.parametrize(
    "lost", ["backbone.conv1.weight", "bbox_head.conv_cls.weight", "backbone.layer1.0.conv2.weight"]
)
def test_a_detector_that_lacks_tensors_is_a_line(model, lost):
    state = {name: array for name, array in fcos().items() if name != lost}
    with pytest.raises(UserError, match="FCOS of MMDetection.*(without what such a detector has|blocks in its stages)"):
        adapt({"architecture": "FCOS"}, state, told(names="caffe"))
        found = mmdet.take(state, model, 3, True)[1]
        raise UserError(f"FCOS of MMDetection without what such a detector has: {misfit(compare(found, model), 3)}")


def test_deformable_convolutions_in_groups_are_told(model):
    state = {**fcos(), "backbone.layer2.0.conv2.conv_offset.weight": np.zeros([108, 128, 3, 3], "float32")}
    with pytest.raises(UserError, match="50 layers: its deformable convolutions are in several groups"):
        mmdet.take(state, model, 3)


@pytest.mark.parametrize("deformable", [True, False])
def test_a_tower_whose_last_convolution_alone_is_deformable_is_taken(deformable):
    state, last = fcos(), "bbox_head.cls_convs.3.conv."
    if deformable:
        state[f"{last}conv_offset.weight"] = np.zeros([27, 256, 3, 3], "float32")
    config = {"architecture": "FCOS", "num_classes": 3}
    adapt(config, state, told(names="caffe"))
    tower = config["FCOSHeadOfMMDet"]["fcos_feat"]
    assert tower.get("name") == ("FCOSFeatOfMMDet" if deformable else None) and tower["num_convs"] == 4
    names = "fcos_head.fcos_feat.fcos_head_cls_tower_conv_3."
    theirs = "conv.conv_dcn" if deformable else "conv"
    own = {f"{names}{theirs}.{x}": Shaped(256) for x in ("weight", "bias")}
    new = mmdet._name(f"{last}weight", "FCOS", {}, own)
    assert (mmdet._deformable(new) if deformable else new) in own
    arrays = {f"{names}norm.weight": np.ones(256, "float32")}
    mmdet._add_biases(arrays, own)
    assert not arrays[f"{names}{theirs}.bias"].any(), "behind a norm there is no bias in the file"


def test_anchors_that_are_not_all_there_keep_their_order():
    arrays = {"head.retina_cls.weight": np.arange(9.0)}
    mmdet._by_size_first(arrays)
    assert arrays["head.retina_cls.weight"].tolist() == list(range(9))


@there
def test_the_config_is_written_beside_the_weights_and_makes_a_detector(tmp_path):
    """By the command: what the checkpoint tells goes before -c, and -o before that."""
    # The fixture is a detector with narrower maps than any of ppdet's: only its own notes are of use here.
    state, notes = look(str(FOLDER / "fcos_r50_caffe.pth"))
    assert notes.caffe and notes.classes == ["c0", "c1", "c2"]
    config = load_recipe(str(ROOT / "configs/fcos/fcos_r50_fpn_1x_coco.yml"), overrides=["num_classes=3"]).student
    adapt(config, state, notes)
    write_beside(str(tmp_path / "model.pdparams"), config, notes)
    again = load_recipe(str(tmp_path / "model.config.yml")).student
    assert again["weights"] == str(tmp_path / "model.pdparams")
    assert again["FCOSHeadOfMMDet"]["fcos_feat"]["num_convs"] == 1
    assert type(build_detector(again)).__name__ == "FCOSOfMMDet"
    assert names_beside(str(tmp_path / "model.pdparams"))[0] == ["c0", "c1", "c2"]


def test_anchors_change_their_order_from_ratios_first_to_sizes_first():
    # Each channel is called by its ratio, its size, and what it predicts.
    names = np.array([[[100 * r + 10 * s + c for c in range(4)] for s in range(3)] for r in range(3)], "float32")
    arrays = {f"head.retina_{kind}.{own}": names.reshape(-1) for kind in ("cls", "reg") for own in ("weight", "bias")}
    mmdet._by_size_first(arrays)
    for array in arrays.values():
        assert array.tolist() == [100 * r + 10 * s + c for s in range(3) for r in range(3) for c in range(4)]


class Shaped:
    def __init__(self, *shape):
        self.shape = list(shape)


def test_a_deformable_convolution_without_weights_gets_weights_of_one():
    arrays = {"b.conv_offset.weight": np.ones([18, 4, 3, 3], "float32"), "b.conv_offset.bias": np.ones(18, "float32")}
    mmdet._modulate(arrays, {"b.conv_offset.weight": Shaped(27, 4, 3, 3), "b.conv_offset.bias": Shaped(27)})
    weight, bias = arrays["b.conv_offset.weight"], arrays["b.conv_offset.bias"]
    assert weight.shape == (27, 4, 3, 3) and (weight[:18] == 1).all() and not weight[18:].any()
    assert (1 / (1 + np.exp(-bias[18:])) == 1).all() and (bias[:18] == 1).all()


def test_maps_that_a_distiller_recorded_are_no_part_of_a_detector():
    whole = dict.fromkeys(
        ["student.neck.a", "student.student.b", "teacher.neck.a", "student_neck_fpn_convs_0_conv", "distill_losses.c"]
    )
    parts = {"student": "student.", "teacher": "teacher."}
    state, left = _part_of(whole, "FGD or MGD", parts, "distill_losses.", "student")
    assert list(state) == ["neck.a", "student.b"], "one prefix is removed, once"
    assert left == {"teacher": 1, "distill_losses": 1, "other tensors": 1}
    state, left = _part_of(whole, "FGD or MGD", parts, "distill_losses.", "teacher")
    assert list(state) == ["neck.a"] and left["student"] == 2
    with pytest.raises(UserError, match="but no teacher"):
        _part_of({"student.a": None}, "FGD or MGD", parts, "distill_losses.", "teacher")
