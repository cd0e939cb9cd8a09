"""tools/convert.py on files of PyTorch: RTMDet of MMYOLO, MMDetection and MMRazor, CSPNeXt, torchvision's ResNet."""

import logging

import numpy as np
import paddle
import pytest

from ppkd.bridge.weights import load_into
from ppkd.bridge.workspace import build_detector
from ppkd.files.foreign import _OF_MMDET, rtmdet_name
from ppkd.recipe.recipe import load_recipe
from ppkd.terminal.log import logger
from tests.conftest import CONFIGS
from tests.helpers_tools import call, the_error
from tests.helpers_torch import Call, Storage, save_torch, tensor

LEVELS = range(3)
CLASSES = "num_classes=3"


def config(family, *overrides):
    return load_recipe(str(CONFIGS / f"{family}.yml"), overrides=[CLASSES, *overrides]).student


@pytest.fixture(scope="module")
def arrays():
    """Function from a config's name to the tensors of a detector with random numbers everywhere, once each."""
    made = {}

    def build(family):
        if family not in made:
            random = np.random.RandomState(len(made))
            state = build_detector(config(family)).state_dict()
            made[family] = {name: random.rand(*value.shape).astype("f4") for name, value in state.items()}
        return made[family]

    return build


def of_mmyolo(arrays):
    """The same tensors as MMYOLO would have saved them: blue before red, and shared convolutions once a level."""
    found = {}
    for name, array in arrays.items():
        if name == "backbone.stem.0.conv.weight":
            array = array[:, ::-1]
        name = name.replace(".dw_conv.", ".depthwise_conv.").replace(".pw_conv.", ".pointwise_conv.")
        name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        first, *rest = name.split(".")
        if first != "head":
            found[name] = array
        elif rest[0].endswith("_convs"):
            for level in LEVELS:
                found[f"bbox_head.head_module.{rest[0]}.{level}.{rest[1]}.conv.{rest[2]}"] = array
        elif rest[0].endswith("_norms"):
            place = f"{rest[0][:3]}_convs.{rest[1]}.{rest[2]}.bn.{rest[3]}"
            found[f"bbox_head.head_module.{place}"] = array
        else:
            found[".".join(["bbox_head", "head_module", *rest])] = array
    norms = [name.rpartition(".")[0] for name in found if name.endswith("running_var")]
    return found | {f"{norm}.num_batches_tracked": np.array(5) for norm in norms}


def of_mmdet(arrays):
    """As MMDetection would have: the neck's layers by other names, and no ``head_module``."""
    renamed = {}
    for name, array in of_mmyolo(arrays).items():
        for old, new in _OF_MMDET:
            old = old.strip("^").replace("\\", "")
            if name.startswith(new):
                name = old + name.removeprefix(new)
                break
        renamed[name] = array
    return renamed


@pytest.fixture
def convert(tmp_path, caplog, monkeypatch):
    """Function: what to save, family, options -> (exit code and errors, the converted tensors or None)."""
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    caplog.set_level(logging.INFO, "ppkd")

    def run(content, family="rtmdet_tiny", *options, legacy=False, overrides=()):
        path, output = tmp_path / "model.pth", tmp_path / "new" / "model.pdparams"
        save_torch(content, path, legacy)
        given = "-c", CONFIGS / f"{family}.yml", "--checkpoint", path, "--output", output
        result = call("convert", *given, *options, "-o", CLASSES, *overrides)
        return result, paddle.load(str(output), return_numpy=True) if output.exists() else None

    return run


def equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def as_tensors(state):
    return {name: tensor(array) for name, array in state.items()}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("made", [of_mmyolo, of_mmdet], ids=["mmyolo", "mmdet"])
def test_rtmdet_loads_strictly(made, legacy, arrays, convert, caplog):
    log = Call("mmengine.logging.history_buffer", "HistoryBuffer", [1.0])
    content = {"meta": {"epoch": 300}, "state_dict": as_tensors(made(arrays("rtmdet_tiny"))), "message_hub": log}
    # Weights that are not averaged stand beside; they are not the ones.
    content["ema_state_dict"] = {"module.backbone.stem.0.conv.weight": tensor(np.zeros(3, "f4"))}
    result, found = convert(content, legacy=legacy)
    assert result == (0, "")
    equal(found, arrays("rtmdet_tiny"))
    model = build_detector(config("rtmdet_tiny"))
    assert model.set_state_dict(found) == ([], [])
    name = "MMYOLO" if made is of_mmyolo else "MMDetection"
    assert f"model.pth: RTMDet of {name}, {len(found)} tensors; left out: none" in caplog.text


def razor(arrays):
    student, teacher = (of_mmyolo(arrays(f"rtmdet_{size}")) for size in ("tiny", "wide"))
    found = {f"architecture.{k}": v for k, v in student.items()} | {f"teacher.{k}": v for k, v in teacher.items()}
    return as_tensors(found | {f"distiller.connectors.fpn{i}_s.conv_module.conv.weight": np.ones(2) for i in LEVELS})


@pytest.mark.parametrize("part, family", [("student", "rtmdet_tiny"), ("teacher", "rtmdet_wide")])
def test_student_and_teacher_of_a_distillation_by_mmrazor(part, family, arrays, convert, caplog):
    content = {"state_dict": razor(arrays)}
    result, found = convert(content, family, *(["--part", "teacher"] if part == "teacher" else []))
    assert result == (0, "")
    equal(found, arrays(family))
    other = {"student": "teacher", "teacher": "architecture"}[part]
    count = len(of_mmyolo(arrays(family)))
    assert f"the {part} of a distillation by MMRazor: RTMDet of MMYOLO" in caplog.text
    assert f"left out: {count} of {other}, 3 of distiller" in caplog.text


def test_an_imagenet_backbone_becomes_a_file_of_backbones(arrays, convert, caplog, tmp_path):
    state = {k: v for k, v in of_mmyolo(arrays("rtmdet_tiny")).items() if k.startswith("backbone.")}
    result, found = convert({"state_dict": as_tensors({**state, "head.fc.weight": np.ones((2, 3), "f4")})})
    assert result == (0, "")
    backbone = {k.removeprefix("backbone."): v for k, v in arrays("rtmdet_tiny").items() if k.startswith("backbone.")}
    equal(found, backbone)
    assert "CSPNeXt, RTMDet's backbone" in caplog.text and "left out: 1 of head" in caplog.text
    match = load_into(build_detector(config("rtmdet_tiny")), str(tmp_path / "new" / "model.pdparams"), "weights")
    assert set(match.taken) == {f"backbone.{name}" for name in backbone}, "as pretrain_weights it is the whole backbone"


# torchvision's names by ppdet's, written out by hand for a few.
RESNET = {
    "conv1.conv1.conv.weight": "conv1.weight", "conv1.conv1.norm._mean": "bn1.running_mean",
    "res2.res2a.branch2a.conv.weight": "layer1.0.conv1.weight",
    "res2.res2a.short.conv.weight": "layer1.0.downsample.0.weight",
    "res2.res2a.short.norm._variance": "layer1.0.downsample.1.running_var",
    "res2.res2c.branch2c.norm.weight": "layer1.2.bn3.weight", "res3.res3d.branch2b.norm.bias": "layer2.3.bn2.bias",
    "res4.res4a.branch2b.conv.weight": "layer3.0.conv2.weight",
    "res4.res4b22.branch2a.conv.weight": "layer3.22.conv1.weight",
    "res4.res4f.branch2a.conv.weight": "layer3.5.conv1.weight",
    "res5.res5c.branch2c.conv.weight": "layer4.2.conv3.weight",
}  # fmt: skip


def of_torchvision(state):
    """ppdet's ResNet as torchvision has it: by the order of its layers, which is the same but for the shortcut's."""
    found, blocks = {}, {}
    for name, array in state.items():
        parts = name.split(".")
        last = {"_mean": "running_mean", "_variance": "running_var"}.get(parts[-1], parts[-1])
        if parts[0] == "conv1":
            found[f"{'conv1' if parts[2] == 'conv' else 'bn1'}.{last}"] = array
            continue
        stage, block, place, kind = int(parts[0][3:]) - 1, parts[1], parts[2], parts[3]
        number = blocks.setdefault(stage, []).index(block) if block in blocks.setdefault(stage, []) else None
        if number is None:
            blocks[stage].append(block)
            number = len(blocks[stage]) - 1
        if place == "short":
            layer = f"downsample.{int(kind == 'norm')}"
        else:
            layer = f"{'conv' if kind == 'conv' else 'bn'}{'abc'.index(place[-1]) + 1}"
        found[f"layer{stage}.{number}.{layer}.{last}"] = array
    classifier = {"fc.weight": np.ones((5, 4), "f4"), "fc.bias": np.ones(5, "f4")}
    return found | classifier | {"bn1.num_batches_tracked": np.array(1)}


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_torchvisions_resnet_becomes_ppdets_backbone(depth, convert, caplog):
    overrides = ["RetinaNet.backbone=ResNet", f"ResNet={{depth: {depth}, return_idx: [1, 2, 3], num_stages: 4}}"]
    model = build_detector(config("retinanet_tiny", *overrides))
    random = np.random.RandomState(0)
    # One number for each tensor, at its size: the whole of a ResNet-101 takes its time.
    state = {k: np.full(v.shape, random.rand(), "f4") for k, v in model.backbone.state_dict().items()}
    content = of_torchvision(state)
    if depth == 18:
        # torchvision's first block adds its input as it is, where ppdet's has a convolution.
        content = {name: array for name, array in content.items() if not name.startswith("layer1.0.downsample")}
        passed = state["res2.res2a.short.conv.weight"]
        passed[:] = np.eye(len(passed), dtype="f4").reshape(passed.shape)
        for name, value in {"weight": 1, "bias": 0, "_mean": 0, "_variance": 1 - 1e-5}.items():
            state[f"res2.res2a.short.norm.{name}"][:] = value
    for ours, theirs in RESNET.items():
        if ours in state and theirs in content:
            assert (content[theirs] == state[ours]).all(), ours
    result, found = convert(content, "retinanet_tiny", overrides=overrides)
    assert result == (0, "")
    equal(found, state)
    assert "a ResNet of torchvision" in caplog.text and "left out: 2 of fc" in caplog.text


# --- what cannot be converted


@pytest.fixture
def refused(convert, tmp_path):
    """Function as `convert`, for what is refused; returns the one line of the error."""

    def run(content, *args, **options):
        result, found = convert(content, *args, **options)
        assert found is None and not (tmp_path / "new").exists(), "nothing is left behind"
        return the_error(*result).replace(f"{tmp_path}/", "")

    return run


def test_another_size_or_number_of_classes(arrays, refused):
    state = as_tensors(of_mmyolo(arrays("rtmdet_wide")))
    message = refused({"state_dict": state})
    assert message.startswith("model.pth: RTMDet of MMYOLO, which does not fit the detector of -c: ")
    assert "of another shape: backbone.stem.0.conv.weight: [8, 3, 3, 3], model [4, 3, 3, 3]" in message
    state = as_tensors(of_mmyolo(arrays("rtmdet_tiny")))
    message = refused({"state_dict": state}, overrides=["num_classes=20"])
    assert message.endswith("(of another num_classes? it seems to have 3, -c has 20)")


def test_mmdetections_way_to_make_distances_has_to_be_that_of_the_head(arrays, refused, convert, caplog):
    state = as_tensors(of_mmdet(arrays("rtmdet_tiny")))
    content = {"meta": {"cfg": "bbox_head=dict(\n    exp_on_reg=True,"}, "state_dict": state}
    message = refused(content)
    wanted = "with exp_on_reg=True, that of -c is False: give -o RTMDetHead.exp_on_reg=true here and wherever"
    assert message.startswith(f"model.pth: RTMDet of MMDetection {wanted}")
    assert "without its config" not in caplog.text
    result, found = convert(content, overrides=["RTMDetHead.exp_on_reg=true"])
    assert result == (0, "")
    equal(found, arrays("rtmdet_tiny"))
    convert({"state_dict": state})
    assert "without its config; its m, l and x need -o RTMDetHead.exp_on_reg=true, tiny and s false" in caplog.text


def test_a_tensor_too_few_or_too_many(arrays, refused):
    state = of_mmyolo(arrays("rtmdet_tiny"))
    lacking = {k: v for k, v in state.items() if k != "neck.out_layers.0.conv.weight"}
    assert "1 missing: neck.out_layers.0.conv.weight" in refused({"state_dict": as_tensors(lacking)})
    more = {**state, "neck.other.weight": np.ones(2, "f4")}
    assert "1 unexpected: neck.other.weight" in refused({"state_dict": as_tensors(more)})


def test_shared_convolutions_that_differ(arrays, refused):
    state = of_mmyolo(arrays("rtmdet_tiny"))
    name = "bbox_head.head_module.reg_convs.2.1.conv.weight"
    state[name] = state[name] + 1
    message = refused({"state_dict": as_tensors(state)})
    reason = f"its head's convolutions, which all levels share, differ at {name}"
    assert message == f"model.pth: RTMDet of MMYOLO, but {reason}"


def test_a_hostile_file_is_refused_and_runs_nothing(arrays, refused, tmp_path):
    state = as_tensors(of_mmyolo(arrays("rtmdet_tiny")))
    message = refused({"state_dict": state, "meta": Call("os", "system", f"touch {tmp_path}/canary")})
    assert message == "model.pth: it calls os.system, which tensors do not need, so it is not opened"
    assert not (tmp_path / "canary").exists()


def test_files_that_are_none_of_these_say_what_they_are(refused):
    known = (
        "RTMDet of MMYOLO or MMDetection; RetinaNet, FCOS, GFL, YOLOX, RepPoints, SOLO, Faster, Mask and Cascade R-CNN "
        "of MMDetection; distillations of these by MMRazor, FGD or MGD; CSPNeXt, and torchvision's ResNet"
    )
    message = refused({"features.0.weight": np.ones(2, "f4"), "features.3.weight": np.ones(2, "f4")})
    holds = "it holds 2 entries: features.0.weight, features.3.weight"
    assert message == f"model.pth: not one of the weights that are known ({known}); {holds}"
    message = refused({"state_dict": {}, "epoch": 1})
    assert message == "model.pth: there are no named tensors in it; it holds 2 entries: state_dict, epoch"
    assert refused([1, 2]) == "model.pth: a list was saved in it, not named tensors"
    message = refused({0: tensor(np.ones(2, "f4"))})
    assert message == "model.pth: there are no named tensors in it; it holds 1 entries: 0"


def test_an_rtmdet_for_another_kind_of_detector(arrays, refused):
    state = as_tensors(of_mmdet(arrays("rtmdet_tiny")))
    message = refused({"state_dict": state}, "ppyoloe_tiny")
    assert message.startswith("model.pth: RTMDet of MMDetection, which does not fit the detector of -c: ")


def test_a_damaged_file_is_told_by_its_name(refused, arrays):
    state = of_mmyolo(arrays("rtmdet_tiny"))
    short = Storage(np.ones(3, "f4"))
    short.count = state["backbone.stem.0.bn.bias"].size
    short.bytes = short.bytes[:4]
    message = refused({**as_tensors(state), "backbone.stem.0.bn.bias": tensor(state["backbone.stem.0.bn.bias"], short)})
    assert message.startswith("model.pth: RTMDet of MMYOLO, but it ends early: ")


def test_the_teacher_is_asked_for_where_there_is_none(arrays, refused):
    state = as_tensors(of_mmyolo(arrays("rtmdet_tiny")))
    message = refused({"state_dict": state}, "rtmdet_tiny", "--part", "teacher")
    assert message == "model.pth: --part teacher is for a distillation by MMRazor, FGD or MGD, which this is not"
    alone = {k: v for k, v in razor(arrays).items() if k.startswith("architecture.")}
    message = refused({"state_dict": alone}, "rtmdet_tiny", "--part", "teacher")
    assert message.startswith("model.pth: of MMRazor's, but no teacher.* in it; it holds ")


def test_a_resnet_for_a_detector_without_one(refused):
    state = {name: np.ones(2, "f4") for name in ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.bn1.weight")}
    message = refused(state)
    assert message.startswith("model.pth: a ResNet of torchvision, but the backbone of -c is CSPNeXt; -c has to be a")


def test_a_resnet_of_another_depth(refused):
    backbone = build_detector(config("retinanet_tiny", *resnet(50))).backbone.state_dict()
    state = of_torchvision({k: np.zeros(v.shape, "f4") for k, v in backbone.items()})
    message = refused(state, "retinanet_tiny", overrides=resnet(101))
    assert "[3, 4, 6, 3] blocks in its stages, but the config has [3, 4, 23, 3]: give -o ResNet.depth=50" in message


def resnet(depth):
    return ["RetinaNet.backbone=ResNet", f"ResNet={{depth: {depth}, return_idx: [1, 2, 3], num_stages: 4}}"]


def test_names_of_mmdetection_are_those_of_its_source():
    """Read in mmdet/models/necks/cspnext_pafpn.py: reduce_layers from the coarsest level on."""
    for theirs, ours in {
        "neck.reduce_layers.0.conv.weight": "neck.reduce_layers.2.conv.weight",
        "neck.reduce_layers.1.bn.running_var": "neck.top_down_layers.0.1.bn._variance",
        "neck.top_down_blocks.0.main_conv.conv.weight": "neck.top_down_layers.0.0.main_conv.conv.weight",
        "neck.top_down_blocks.1.final_conv.bn.bias": "neck.top_down_layers.1.final_conv.bn.bias",
        "neck.downsamples.1.conv.weight": "neck.downsample_layers.1.conv.weight",
        "neck.bottom_up_blocks.0.short_conv.conv.weight": "neck.bottom_up_layers.0.short_conv.conv.weight",
        "neck.out_convs.2.bn.weight": "neck.out_layers.2.bn.weight",
        "bbox_head.cls_convs.1.0.conv.weight": "head.cls_convs.0.weight",
        "bbox_head.reg_convs.2.1.bn.running_mean": "head.reg_norms.2.1._mean",
        "bbox_head.rtm_reg.0.bias": "head.rtm_reg.0.bias",
    }.items():
        assert rtmdet_name(theirs, of_mmdet=True) == ours
