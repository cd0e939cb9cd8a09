"""Head towers: their layers as sources, and what follows them in a frozen teacher's head as a function."""

import pickle

import paddle
import pytest

from ppkd.build import build_student
from ppkd.detectors import _ADAPTERS, detector_for
from ppkd.detectors.base import Detector
from ppkd.detectors.recorders import Recorder
from ppkd.detectors.towers import SUPPORTED
from ppkd.engine.teachers import freeze
from ppkd.errors import UserError
from tests.conftest import enliven, training_batch
from tests.detectors.test_recorders import hooks_on
from tests.helpers_training import differing, everything_in

# Case -> tiny config, overrides, and the layers before each source.
CASES = {
    "gfl": ("gfl", [], {"head.cls": 1, "head.box_dist": 1}),
    "gfl deep": ("gfl", ["GFLHead.conv_feat.num_convs=3"], {"head.cls": 3, "head.box_dist": 3}),
    "fcos": (
        "fcos", ["FCOSHead.fcos_feat.num_convs=2"], {"head.cls": 2, "head.box": 2, "head.centerness": 2}
    ),
    "fcos apart": (
        "fcos", ["FCOSHead.centerness_on_reg=false"], {"head.cls": 1, "head.box": 1, "head.centerness": 1}
    ),
    "retinanet": ("retinanet", ["RetinaHead.conv_feat.num_convs=2"], {"head.cls": 2, "head.box": 2}),
    "picodet": ("picodet", [], {"head.cls": 2, "head.box_dist": 2}),
    "picodet apart": (
        "picodet", ["PicoHead.conv_feat.share_cls_reg=false", "PicoHead.conv_feat.num_convs=2"],
        {"head.cls": 4, "head.box_dist": 5},
    ),
    "picodet relu6": ("picodet", ["PicoHead.conv_feat.act=relu6"], {"head.cls": 2, "head.box_dist": 2}),
    "picodet se": ("picodet", ["PicoHead.conv_feat.use_se=true"], {"head.cls": 2, "head.box_dist": 2}),
    "picodet v2": ("picodet_v2", [], {"head.cls": 3, "head.box_dist": 3}),
    "picodet v2 apart": (
        "picodet_v2", ["PicoHeadV2.conv_feat.use_se=false", "PicoHeadV2.conv_feat.share_cls_reg=false"],
        {"head.cls": 3, "head.box_dist": 3},
    ),
    "ppyoloe": ("ppyoloe", [], {"head.cls": 1, "head.box_dist": 1}),
    "yolox": ("yolox", [], {"head.cls": 3, "head.box": 3, "head.objectness": 3}),
    "yolox depthwise": ("yolox", ["YOLOXHead.depthwise=true"], {"head.cls": 3, "head.box": 3, "head.objectness": 3}),
    "tood": ("tood", [], {"head.cls": 1, "head.box": 1}),
    "rtmdet": ("rtmdet", [], {"head.cls": 2, "head.box": 2}),
}  # fmt: skip
NONE = ("yolov3", "faster_rcnn", "solov2")
each = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def detector(recipe):
    """Function from a case to the adapter around its lively, frozen tiny detector, in eval mode."""

    def build(case):
        family, overrides, _ = CASES.get(case, (case, [], {}))
        model = enliven(build_student(recipe(family, distil=False, overrides=overrides)))
        for name, buffer in model.named_buffers():
            if name.endswith(("_mean", "_variance")):
                buffer.set_value(0.5 + paddle.rand(buffer.shape))
        return detector_for(freeze(model))

    return build


def tower_of(adapter, source):
    return adapter.towers()[source].name


def everything(case, adapter, batch):
    """``(source, skip) -> levels' inputs``, and source -> levels' tensors, of one run of the untouched detector."""
    sources = CASES[case][2]
    with adapter.looked_at_once():
        levels = {source: adapter.levels(source) for source in sources}
        for source, count in sources.items():
            levels |= {(source, skip): entries(adapter, source, skip) for skip in range(count + 1)}
    paths = [level.tap.path for group in levels.values() for level in group]
    with paddle.no_grad(), Recorder(adapter.model, paths) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    tensors = {key: [recorder.take(level.tap) for level in group] for key, group in levels.items()}
    inputs = {key: value for key, value in tensors.items() if key not in sources}
    return inputs, {key: value for key, value in tensors.items() if key in sources}


def entries(adapter, source, skip):
    """What the layers from `skip` on are given, a level each."""
    count = len(adapter.levels(source))
    return [adapter.levels(adapter.enters(source, i, skip))[0] for i in range(count)]


def images():
    return {"image": paddle.rand([2, 3, 64, 64]), "im_shape": paddle.full([2, 2], 64.0)}


@each
def test_the_remaining_layers_make_the_very_source_from_every_layers_output(case, detector):
    adapter = detector(case)
    assert {source: adapter.tower(source) for source in adapter.towers()} == CASES[case][2]
    inputs, outputs = everything(case, adapter, images())
    assert all(float((x - x.mean()).abs().max()) > 1e-3 for x, *_ in outputs.values()), "a constant shows nothing"
    for (source, skip), levels in inputs.items():
        assert len(levels) == len(outputs[source]) > 1
        for i, x in enumerate(levels):
            made = adapter.remaining(source, i, skip)(x)
            assert made.shape == outputs[source][i].shape
            assert float((made - outputs[source][i]).abs().max()) <= 1e-6, (source, i, skip)


@each
def test_layers_of_towers_are_sources_with_the_strides_of_the_neck(case, detector):
    adapter = detector(case)
    with adapter.looked_at_once():
        layers_are_sources(case, adapter)


def layers_are_sources(case, adapter):
    strides = [level.stride for level in adapter.levels("neck")]
    for source, count in CASES[case][2].items():
        for k in range(count):
            name = f"{tower_of(adapter, source)}.{k}"
            levels = adapter.levels(f"{name}[*]")
            assert [level.source for level in levels] == [f"{name}[{i}]" for i in range(len(strides))]
            assert [level.stride for level in levels] == strides
            assert adapter.levels(f"{name}[1]") == levels[1:2]
            assert adapter.levels(f"{name}[s{strides[-1]}]") == levels[-1:]
            assert adapter.offers(name)
            assert all(pickle.loads(pickle.dumps(level)) == level for level in levels)


@each
def test_gradients_reach_the_input_and_nothing_of_the_teacher_changes(case, detector):
    adapter = detector(case)
    model = adapter.model
    shapes = {source: adapter.levels("neck") for source in CASES[case][2]}
    # The teacher is in eval mode anyway; the function does not count on it.
    model.train()
    before, modes = everything_in(model), [layer.training for layer in model.sublayers(include_self=True)]
    for source, levels in shapes.items():
        x = paddle.rand([2, levels[0].channels, 8, 8])
        x.stop_gradient = False
        made = adapter.remaining(source, 0, 0)(x)
        with paddle.no_grad():
            first = adapter.remaining(source, 0, 0)(x[:1])
        # Batch statistics would make an image's values depend on the other image.
        assert float((made[:1] - first).abs().max()) < 1e-4
        (made**2).sum().backward()
        assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in model.parameters())
    assert differing(everything_in(model), before) == []
    assert [layer.training for layer in model.sublayers(include_self=True)] == modes
    assert hooks_on(model) == 0


@each
def test_a_wrong_skip_level_layer_or_source_names_what_there_is(case, detector):
    adapter = detector(case)
    for source, count in CASES[case][2].items():
        for skip in (-1, count + 1):
            with pytest.raises(
                UserError, match=f"{source} has a tower of {count} layers: .*from 0 to {count}, found {skip}"
            ):
                adapter.remaining(source, 0, skip)
        levels = len(adapter.levels(source))
        for level in (-1, levels):
            with pytest.raises(UserError, match=rf"has no '{source}\[{level}\]': {source} has {levels} levels"):
                adapter.remaining(source, level, 0)
    with pytest.raises(UserError, match="head before 'neck' are not known; there is one before head.cls, head.box"):
        adapter.remaining("neck", 0, 0)
    for wrong in ("head.cls_tower.9[0]", "head.box_tower.x"):
        with pytest.raises(UserError, match=r"layers of towers: head\.\w+_tower\.0"):
            adapter.levels(wrong)
    with pytest.raises(
        UserError, match=r"named sources: backbone\[i\], neck\[i\],.* head\.cls.*, head\.box_tower\.K\[i\]"
    ):
        adapter.levels("head.klass")


@pytest.mark.parametrize("case", NONE)
def test_a_head_without_known_layers_says_so(case, detector):
    adapter = detector(case)
    known = "known are those of FCOS, GFL, PicoDet, PP-YOLOE, RetinaNet, RTMDet, TOOD, YOLOX"
    for call in (lambda: adapter.remaining("head.cls", 0, 0), lambda: adapter.tower("head.cls")):
        with pytest.raises(UserError, match=f"head before 'head.cls' are not known; {known}"):
            call()
    with pytest.raises(UserError, match=rf"has no source 'head.cls_tower.0\[\*\]'; {known}"):
        adapter.levels("head.cls_tower.0[*]")
    assert not [name for name in adapter.aliases() if "tower" in name]


def test_the_families_that_the_error_names_are_those_that_there_are():
    told = {kind.__name__ for kind in _ADAPTERS if kind.towers is not Detector.towers}
    assert told == {name.replace("-", "") for name in SUPPORTED}
    assert {type_of(family) for family, *_ in CASES.values()} == told


def type_of(family):
    return {
        "gfl": "GFL", "fcos": "FCOS", "retinanet": "RetinaNet", "picodet": "PicoDet", "picodet_v2": "PicoDet",
        "ppyoloe": "PPYOLOE", "yolox": "YOLOX", "tood": "TOOD", "rtmdet": "RTMDet",
    }[family]  # fmt: skip


def test_a_students_features_go_through_the_teachers_layers(detector, recipe):
    """As CrossKD has it: from the student's first layer on by the teacher's second, and the loss trains the student."""
    loaded = recipe("retinanet", distil=False, overrides=CASES["retinanet"][1])
    student, teacher = detector_for(enliven(build_student(loaded))), detector("retinanet")
    (level,) = student.levels("head.cls_tower.0[s16]")
    student.model.train()
    with Recorder(student.model, [level.tap.path]) as recorder:
        student.model(training_batch(loaded))
    logits = teacher.remaining("head.cls", 1, 1)(recorder.take(level.tap))
    assert logits.shape == [2, 3 * 6, 4, 4]
    (logits**2).sum().backward()
    reached = [n for n, p in student.head.named_parameters() if p.grad is not None and float(p.grad.abs().sum())]
    assert {name.rpartition(".conv.")[0] for name in reached} == {"conv_feat.fcos_head_cls_tower_conv_0"}
    assert all(p.grad is None for p in teacher.model.parameters())
