"""Weights of PyTorch's files where a config names them: fetched, compared with their name, converted once."""

import hashlib
import os

import numpy as np
import pytest

from ppkd.bridge.weights import load_exactly, load_into, load_teacher
from ppkd.bridge.workspace import build_detector
from ppkd.errors import UserError
from ppkd.files import download, first_use, locate
from ppkd.files.beside import config_beside
from ppkd.files.first_use import check_config
from ppkd.files.mmdet_settings import Told
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, ROOT
from tests.helpers_mmdet import of_mmdet, saved
from tests.helpers_torch import save_torch, tensor

MODELS = "https://download.openmmlab.com/mmdetection/v2.0/retinanet/"


def config(*overrides, family="resnet_tiny"):
    neck = ["FPN.relu_before_extra_convs=false"] if family == "resnet_tiny" else []  # as RetinaNet's there
    return load_recipe(str(CONFIGS / f"{family}.yml"), overrides=["num_classes=3", *neck, *overrides]).student


@pytest.fixture(scope="module")
def model():
    return build_detector(config())


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Function that puts a file on the network: what to save and how it is called -> its URL, asked for in `asked`."""
    monkeypatch.setattr(locate, "CACHE", str(tmp_path / "cache"))
    asked = []

    def put(content, name="retinanet_r50_fpn_1x_coco", digest=None, place=MODELS):
        path = str(tmp_path / "served.pth")
        save_torch(content, path)
        with open(path, "rb") as file:
            data = file.read()

        def receive(url, part, stop):
            asked.append(url)
            with open(part, "wb") as file:
                file.write(data)

        monkeypatch.setattr(download, "_receive", receive)
        return f"{place}{name}-{digest or hashlib.sha256(data).hexdigest()[:8]}.pth"

    put.asked = asked
    return put


def test_a_teacher_of_mmdetection_is_fetched_and_converted_once(model, serve, monkeypatch):
    state, own = of_mmdet(model)
    url = serve(saved(state, CLASSES=("a", "b", "c")))
    settled = config()
    assert load_teacher(model, url, {"backbone", "neck", "head"}, settled).complete
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), own[name], err_msg=name)
    folder = os.path.join(locate.CACHE, "converted")
    (weights,) = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pdparams")]
    beside = load_recipe(config_beside(weights)).student
    assert beside["weights"] == weights and beside["ResNet"] == settled["ResNet"]
    assert load_exactly(build_detector(beside), weights, "weights").complete
    monkeypatch.setattr(first_use, "take_weights", None)  # not to be asked again
    assert load_teacher(build_detector(settled), url, {"backbone"}, settled).complete
    assert len(serve.asked) == 1


@pytest.mark.parametrize("place", [MODELS, "https://download.pytorch.org/models/"])
def test_another_file_than_the_name_says_is_refused(model, serve, place):
    url = serve(saved(of_mmdet(model)[0]), digest="00000000", place=place)
    with pytest.raises(UserError, match="not the file that is wanted: its SHA-256 is .*, not 00000000"):
        load_into(model, url, "teacher weights")
    assert not [name for _, _, names in os.walk(locate.CACHE) for name in names if name.endswith((".pth", ".pdparams"))]


def test_eight_digits_elsewhere_are_no_checksum(model, serve):
    url = serve(saved(of_mmdet(model)[0]), digest="20200130", place="https://example.org/")
    assert load_into(model, url, "teacher weights").complete


def test_a_teacher_of_another_number_of_classes_keeps_its_features(model, serve):
    url = serve(saved(of_mmdet(model)[0]))
    other = config("num_classes=5")
    match = load_teacher(build_detector(other), url, {"backbone", "neck"}, other)
    assert not match.complete and all("head.retina_cls" in name for name in match.unfit)
    with pytest.raises(UserError, match="do not fit the teacher"):
        load_teacher(build_detector(other), url, {"backbone", "neck", "head"}, other)


def test_a_teacher_of_another_kind_is_a_line(model, serve):
    url = serve(saved(of_mmdet(model)[0]))
    for given, said in (
        (config(family="gfl_tiny"), "RetinaNet of MMDetection with 3 classes, but the config is of GFL; begin with"),
        (config("ResNet.depth=50"), r"\[2, 2\] blocks in its stages, but the config has \[3, 4\]"),
    ):
        with pytest.raises(UserError, match=f"^teacher weights: .*{said}") as error:
            load_into(build_detector(given), url, "teacher weights", given)
        assert "\n" not in str(error.value)
    assert not os.path.exists(os.path.join(locate.CACHE, "converted"))


def test_a_config_under_which_numbers_would_differ_is_refused(model):
    state, _ = of_mmdet(model)
    check_config(config(), state, Told("", "retinanet_r50", "", None))
    caffe = Told("", "retinanet_r50_caffe", "", None)
    with pytest.raises(UserError, match="RetinaNet of .*: its config needs ResNet.variant=a, and has b"):
        check_config(config(), state, caffe)
    with pytest.raises(UserError, match="of another normalisation: .* has to be {is_scale: false, mean: "):
        check_config(config("ResNet.variant=a"), state, caffe)
    given = config("FPN.use_c5=true")
    levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("neck.lateral_convs."))
    state[f"neck.fpn_convs.{levels}.conv.weight"] = np.zeros([16, 16, 3, 3], "f4")
    with pytest.raises(UserError, match="needs FPN.use_c5=False, and has True"):
        check_config(given, state, Told("", "retinanet_r50", "", None))


@pytest.mark.parametrize(
    "name, own",
    [
        ("mmdet_faster_rcnn_r101_fpn_2x_coco", "roi_head.bbox_head.fc_cls"),
        ("mmdet_cascade_mask_rcnn_x101_32x4d_fpn_dconv_c3-c5_1x_coco", "roi_head.bbox_head.0.fc_cls"),
        ("mmdet_solo_r101_fpn_3x_coco", "mask_head.conv_cls"),
    ],
)
def test_a_neck_that_has_no_extra_levels_asks_for_none(name, own):
    """Its fourth output is that of its fourth map: no layer that makes an extra level."""
    given = load_recipe(str(ROOT / "configs" / "mmdet" / f"{name}.yml")).student
    groups = given["ResNet"].get("groups", 1)
    state = {
        f"{own}.weight": np.zeros([81, 8], "f4"), "mask_head.cls_convs.0.conv.weight": np.zeros([8, 8, 3, 3], "f4"),
        "backbone.layer1.0.conv2.weight": np.zeros([4 * groups, 4, 3, 3] if groups > 1 else [64, 64, 3, 3], "f4"),
    }  # fmt: skip
    for k in range(4):
        state[f"neck.lateral_convs.{k}.conv.weight"] = np.zeros([8, 4, 1, 1], "f4")
        state[f"neck.fpn_convs.{k}.conv.weight"] = np.zeros([8, 8, 3, 3], "f4")
        if k and groups > 1:
            state[f"backbone.layer{k + 1}.0.conv2.conv_offset.weight"] = np.zeros([18, 8, 3, 3], "f4")
    check_config(given, state, Told("", "r101", "", None))


def test_a_resnet_of_torchvision_is_a_backbone_to_begin_with(model, serve):
    state, own = of_mmdet(model)
    bare = {name.removeprefix("backbone."): tensor(x) for name, x in state.items() if name.startswith("backbone.")}
    bare |= {"layer4.0.bn1.weight": tensor(np.zeros(1, "f4")), "fc.bias": tensor(np.zeros(1000, "f4"))}
    url = serve(bare, "resnet18", place="https://download.pytorch.org/models/")
    match = load_into(model, url, "student weights")
    assert {name.split(".")[0] for name in match.taken} == {"backbone"} and len(match.missing) == len(
        [name for name in own if not name.startswith("backbone.")]
    )
    # Detectron's, which have the word in their name, take blue first.
    caffe = serve(bare, "resnet50_caffe", place="https://download.openmmlab.com/pretrain/")
    load_into(model, caffe, "student weights")
    stem = "backbone.conv1.conv1.conv.weight"
    np.testing.assert_array_equal(model.state_dict()[stem].numpy(), own[stem][:, ::-1])


@pytest.mark.parametrize("name", sorted((ROOT / "configs/slim/distill").glob("fgd_*.yml")), ids=lambda path: path.stem)
def test_every_teacher_of_fgds_authors_has_the_digits_of_its_file_in_its_name(name):
    text = name.read_text(encoding="utf-8")
    (weights,) = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("pretrain_weights: ")]
    assert (download.named_checksum(weights) is None) == ("solo" in name.stem)
