"""What differs between detector architectures: named sources, and the part of a teacher that has to run."""

import copy

import paddle
import paddle.nn.functional as F
import pytest

from ppkd.build import build_student
from ppkd.detectors import Detector, Tap, detector_for
from ppkd.detectors.fcos import FCOS
from ppkd.detectors.gfl import GFL, PicoDet
from ppkd.detectors.ppyoloe import PPYOLOE
from ppkd.detectors.rcnn import RCNN
from ppkd.detectors.recorders import Recorder
from ppkd.detectors.reppoints import RepPoints
from ppkd.detectors.retinanet import RetinaNet
from ppkd.detectors.rtmdet import RTMDet
from ppkd.detectors.solo import SOLO
from ppkd.detectors.solov2 import SOLOv2
from ppkd.detectors.tood import TOOD
from ppkd.detectors.yolov3 import YOLOv3
from ppkd.detectors.yolox import YOLOX
from ppkd.errors import UserError
from tests.conftest import enliven, training_batch
from tests.detectors.test_recorders import hooks_on
from tests.helpers_training import count_calls, differing, everything_in, fail, settle

KINDS = {
    "retinanet": RetinaNet, "ppyoloe": PPYOLOE, "gfl": GFL, "picodet": PicoDet, "yolov3": YOLOv3, "fcos": FCOS,
    "tood": TOOD, "yolox": YOLOX, "faster_rcnn": RCNN, "mask_rcnn": RCNN, "cascade_rcnn": RCNN, "solov2": SOLOv2,
    "rtmdet": RTMDet, "reppoints": RepPoints, "solo": SOLO,
}  # fmt: skip
SOLO_HEAD = "feat_channels: 16, stacked_convs: 2, norm_groups: 4, num_grids: [10, 8, 6, 4, 3]"
# Variants of a family: overrides of its tiny config.
VARIANTS = {
    "picodet apart": ("picodet", ["PicoHead.conv_feat.share_cls_reg=false"]),
    "ppyolo": ("yolov3", ["YOLOv3Head.iou_aware=true", "YOLOv3Loss.iou_aware_loss={name: IouAwareLoss}"]),
    "solo decoupled": ("solo", ["SOLO.head=DecoupledSOLOHead", f"DecoupledSOLOHead={{{SOLO_HEAD}}}"]),
}
RCNNS = ("faster_rcnn", "mask_rcnn", "cascade_rcnn")
FROM_STRIDE_4 = (*RCNNS, "solov2", "solo")
STRIDES = {
    **dict.fromkeys(("retinanet", "reppoints"), [8, 16, 32, 64, 128]),
    "ppyoloe": [32, 16, 8], "yolov3": [32, 16, 8],
    **dict.fromkeys(("picodet", "yolox", "rtmdet"), [8, 16, 32]),
    **dict.fromkeys(("gfl", "fcos", "tood"), [8, 16, 32, 64]),
    **dict.fromkeys(FROM_STRIDE_4, [4, 8, 16, 32, 64]),
}  # fmt: skip
# Where a head's levels lie, if not where the neck's do: grids of so many cells, or strides.
GRIDS = [(n, n) for n in (10, 8, 6, 4, 3)]
PLACES = {("solov2", "head.cls"): GRIDS, ("solov2", "head.kernel"): GRIDS, ("solov2", "head.mask"): [4]}
# SOLO's masks are of half its maps' strides; the first map is the second's size, and the last one the last but one's.
SOLO_MASKS = [4, 4, 8, 16, 16]
PLACES |= {("solo", "head.cls"): GRIDS, ("solo", "head.mask"): SOLO_MASKS, ("solo decoupled", "head.cls"): GRIDS}
PLACES |= {("solo decoupled", f"head.mask_{axis}"): SOLO_MASKS for axis in "xy"}
NECK = {family: [16] * len(STRIDES[family]) for family in KINDS}
NECK |= {"ppyoloe": [96, 48, 24], "yolov3": [16, 12, 8], "yolox": [32, 64, 128], "rtmdet": [32, 32, 32]}
BODY = dict.fromkeys(KINDS, [(8, 16), (16, 32), (32, 32)])
BODY |= dict.fromkeys(("ppyoloe", "yolox", "rtmdet"), [(8, 32), (16, 64), (32, 128)])
BODY |= dict.fromkeys(FROM_STRIDE_4, [(4, 16), (8, 16), (16, 32), (32, 32)])
MODULE = dict.fromkeys(KINDS, ("neck.fpn_res4_sum", (16, 16)))
MODULE |= {
    "ppyoloe": ("neck.pan_stages.0", (32, 96)), "picodet": ("neck.bottom_up_blocks.1", (32, 16)),
    "yolov3": ("neck.yolo_block.1", (16, 12)), "yolox": ("neck.pan_blocks.0", (16, 64)),
    "rtmdet": ("neck.bottom_up_layers.0", (16, 64)),
}  # fmt: skip
# Source -> channels a class or a box takes: three anchors a place; four edges of so many bins.
HEADS = {
    "retinanet": {"head.cls": lambda classes: 3 * classes, "head.box": lambda classes: 3 * 4},
    "ppyoloe": {"head.cls": lambda classes: classes, "head.box_dist": lambda classes: 4 * 17},
    "gfl": {"head.cls": lambda classes: classes, "head.box_dist": lambda classes: 4 * 9},
    "picodet": {"head.cls": lambda classes: classes, "head.box_dist": lambda classes: 4 * 8},
    "yolov3": {
        "head.box": lambda classes: 3 * 4,
        "head.objectness": lambda classes: 3,
        "head.cls": lambda classes: 3 * classes,
    },
    "fcos": {
        "head.cls": lambda classes: classes,
        "head.box": lambda classes: 4,
        "head.centerness": lambda classes: 1,
    },
    "tood": {"head.cls": lambda classes: classes, "head.box": lambda classes: 4},
    "yolox": {
        "head.cls": lambda classes: classes,
        "head.box": lambda classes: 4,
        "head.objectness": lambda classes: 1,
    },
    "rtmdet": {"head.cls": lambda classes: classes, "head.box": lambda classes: 4},
    "reppoints": {"head.cls": lambda classes: classes, "head.points": lambda classes: 18},
    "solo": {"head.cls": lambda classes: classes},
    **dict.fromkeys(RCNNS, {"head.objectness": lambda classes: 3, "head.box": lambda classes: 3 * 4}),
    "solov2": {
        "head.cls": lambda classes: classes,
        "head.kernel": lambda classes: 16,
        "head.mask": lambda classes: 16,
    },
}  # fmt: skip
for variant, (family, _) in VARIANTS.items():
    for table in (KINDS, STRIDES, NECK, BODY, MODULE, HEADS):
        table[variant] = table[family]
each = pytest.mark.parametrize("family", KINDS)


def load(recipe, family, *overrides):
    """The plain recipe of a family or a variant."""
    family, given = VARIANTS.get(family, (family, []))
    return recipe(family, distil=False, overrides=[*given, *overrides])


@pytest.fixture
def detector(recipe):
    """Function from family to the adapter around a tiny detector."""
    return lambda family: detector_for(enliven(build_student(load(recipe, family))))


@each
def test_sources_have_the_strides_and_channels_of_the_model(family, detector, recipe):
    adapter, classes = detector(family), load(recipe, family).student["num_classes"]
    assert type(adapter) is KINDS[family]
    assert [(x.stride, x.channels) for x in adapter.levels("backbone[*]")] == BODY[family]
    expected = list(zip(STRIDES[family], NECK[family]))
    for source in ("neck[*]", "neck"):
        found = adapter.levels(source)
        assert [(x.stride, x.channels) for x in found] == expected
        assert [(x.source, x.tap) for x in found] == [(f"neck[{i}]", Tap("neck", item=i)) for i in range(len(found))]
    for source, channels in HEADS[family].items():
        found, places = adapter.levels(f"{source}[*]"), PLACES.get((family, source), STRIDES[family])
        assert [(x.place, x.channels) for x in found] == [(place, channels(classes)) for place in places]
        assert all((x.cells if isinstance(x.place, tuple) else x.stride) == x.place for x in found)
        last = len(found) - 1
        (one,) = adapter.levels(f"{source}[{last}]")
        for level in (one, found[last]):
            assert (level.source, level.place, level.channels) == (f"{source}[{last}]", *whereabouts(found[last]))
        assert (one.tap.path, one.tap.call) == (found[last].tap.path, found[last].tap.call)


def whereabouts(level):
    return level.place, level.channels


@each
def test_a_module_path_is_a_source(family, detector):
    adapter = detector(family)
    name, expected = MODULE[family]
    (level,) = adapter.levels(name)
    assert (level.source, level.tap) == (f"{name}[0]", Tap(name))
    assert (level.stride, level.channels) == expected


@each
def test_a_wrong_source_names_what_there_is(family, detector):
    adapter = detector(family)
    with adapter.looked_at_once():
        refused(adapter, family)


def refused(adapter, family):
    with pytest.raises(UserError, match=r"source 'nek\[0\]'; nearest: neck.*named sources: backbone\[i\], neck\[i\]"):
        adapter.levels("nek[0]")
    with pytest.raises(UserError, match="has no source 'head.objekt"):
        adapter.levels("head.objekt[0]")
    with pytest.raises(UserError, match=r"neck returns \d tensors; neck\[9\] does not exist"):
        adapter.levels("neck[9]")
    with pytest.raises(UserError, match="is not a source"):
        adapter.levels("neck[a]")
    for source in HEADS[family]:
        with pytest.raises(UserError, match=BEYOND):
            adapter.levels(f"{source}[9]")


# A shared convolution is not called that often; a list of them is not that long.
BEYOND = r"was called \d times in this step; call 9 does not exist|has no 'head\.\w+\[9\]': head\.\w+ has \d levels"


@each
def test_levels_are_chosen_by_their_strides(family, detector):
    """While one dry forward tells of them all, which are what each of its own would tell."""
    adapter, strides = detector(family), STRIDES[family]
    name, (stride, _) = MODULE[family]
    sources = ("neck", *(s for s in HEADS[family] if (family, s) not in PLACES))
    apart = {source: described(adapter.levels(f"{source}[*]")) for source in (*sources, name)}
    runs = count_calls(adapter.model.backbone)
    with adapter.looked_at_once():
        for source in sources:
            everything = adapter.levels(f"{source}[*]")
            assert described(everything) == apart[source]
            for i, stride_of_one in enumerate(strides):
                assert described(adapter.levels(f"{source}[s{stride_of_one}]")) == described(everything[i : i + 1])
            # In the order of the model, whatever the order of asking.
            for chosen in ("s{},s{}", "s{1}, s{0}"):
                wanted = chosen.format(strides[0], strides[2])
                assert described(adapter.levels(f"{source}[{wanted}]")) == described([everything[0], everything[2]])
        # YOLOv3's block returns two maps of one stride.
        for wanted in (f"s{stride}", "*"):
            assert described(adapter.levels(f"{name}[{wanted}]")) == apart[name]
        once = len(runs)
    assert once == 1 + any(source.startswith("head.") for source in sources), "one for the neck, one for the head"
    adapter.levels("neck[0]")
    assert len(runs) > once, "what was seen is kept beyond the block"


def described(levels):
    """What can be compared of levels: partial functions are equal to nothing but themselves."""
    return [(x.source, x.stride, x.channels, x.tap.path, x.tap.call, x.tap.item, str(x.tap.derive)) for x in levels]


@each
def test_a_stride_that_is_not_there_names_those_that_are(family, detector):
    adapter = detector(family)
    there = ", ".join(f"s{stride}" for stride in STRIDES[family])
    for wanted, missing in (("s7", "s7"), (f"s{STRIDES[family][0]},s7,s512", "s7, s512")):
        told = rf"'neck\[{wanted}\]': neck has no level {missing}; its strides: {there}$"
        with adapter.looked_at_once(), pytest.raises(UserError, match=told):
            adapter.levels(f"neck[{wanted}]")
    for wrong in ("neck[s]", "neck[s8,]", "neck[8,16]", "neck[s8,1]"):
        with pytest.raises(UserError, match="is not a source: write .*neck.s8."):
            adapter.levels(wrong)


def test_without_a_neck_the_backbones_maps_are_what_the_head_is_given(recipe):
    model = build_student(recipe("ssd", distil=False))
    detector = detector_for(model)
    for source in ("neck", "backbone"):
        levels = detector.levels(f"{source}[*]")
        found = [(x.tap.path, x.tap.item, x.stride) for x in levels]
        assert len(found) == 6 and found[:4] == [("backbone", i, 16 << i) for i in range(4)]


def test_grids_have_no_strides(detector):
    with pytest.raises(UserError, match="head.cls has no level s8; its strides: none"):
        detector("solov2").levels("head.cls[s8]")


@each
def test_the_dry_forward_leaves_no_trace(family, detector):
    adapter = detector(family)
    model = adapter.model
    model.train()
    model.neck.eval()  # modes are put back one by one, not all to train
    modes = [layer.training for layer in model.sublayers(include_self=True)]
    before, state = everything_in(model), copy.deepcopy([g.current_seed() for g in paddle.get_rng_state()])
    for source in ("backbone", "neck", *HEADS[family]):
        adapter.levels(f"{source}[*]")
    assert differing(everything_in(model), before) == []
    assert [layer.training for layer in model.sublayers(include_self=True)] == modes
    assert [g.current_seed() for g in paddle.get_rng_state()] == state
    assert hooks_on(model) == 0
    assert all(p.grad is None for p in model.parameters())


@each
def test_only_the_needed_part_runs(family, detector, recipe, monkeypatch):
    adapter, batch = detector(family), training_batch(load(recipe, family))
    model = adapter.model
    model.eval()
    head = getattr(model, adapter.head_name)
    parts = [count_calls(layer) for layer in (model.backbone, model.neck, head)]
    for function in ("get_loss", "post_process", "get_prediction", "_gen_proposal"):
        monkeypatch.setattr(head, function, fail, raising=False)
    monkeypatch.setattr(model, "forward", fail, raising=False)
    seen = []
    for wanted in ({"backbone"}, {"neck"}, {adapter.head_name}):
        adapter.run(dict(batch), wanted)
        seen.append([len(calls) for calls in parts])
    # In eval mode the heads of GFL, PicoDet and the R-CNNs make boxes; of them, the part that does not is called.
    assert seen == [[1, 0, 0], [2, 1, 0], [3, 2, 0 if isinstance(adapter, (GFL, PicoDet, RCNN)) else 1]]


@each
def test_recorded_tensors_are_those_of_the_whole_model(family, detector, recipe):
    """Also at a training size that differs from the size for which the head keeps its anchors."""
    adapter = detector(family)
    model, sources = adapter.model, ["neck", *HEADS[family]]
    model.eval()
    levels = [level for source in sources for level in adapter.levels(f"{source}[*]")]
    count = 1 if family == "solov2" else 2  # in eval mode it takes single images
    batch = {"image": paddle.rand([count, 3, 64, 64]), "im_shape": paddle.full([count, 2], 64.0)}
    batch["scale_factor"] = paddle.ones([count, 2])
    taken = []
    for run in (lambda: adapter.run(dict(batch), {adapter.head_name}), lambda: model(dict(batch))):
        with paddle.no_grad(), Recorder(model, [level.tap.path for level in levels]) as recorder:
            run()
        taken.append([recorder.take(level.tap) for level in levels])
    assert differing(*taken) == []

    batch["image"] = paddle.rand([2, 3, 96, 128])
    with paddle.no_grad(), Recorder(model, [level.tap.path for level in levels]) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    sizes = [list(x.cells or (-(-96 // x.stride), -(-128 // x.stride))) for x in levels]
    assert [recorder.take(level.tap).shape[2:] for level in levels] == sizes


def of_the_loss(adapter, batch, monkeypatch):
    """Source -> what the head's own loss computes with in a training step, one tensor a level in its own layout."""
    head, seen = adapter.head, {}
    if isinstance(adapter, YOLOv3):
        adapter.model(batch)
        for x, y, w, h, objectness, classes in head.loss.distill_pairs:
            for source, fields in (("box", [x, y, w, h]), ("objectness", [objectness]), ("cls", [classes])):
                fields = paddle.concat(fields, axis=-1).transpose([0, 1, 4, 2, 3])  # (N, anchors, fields, H, W)
                seen.setdefault(f"head.{source}", []).append(fields.flatten(1, 2))
        return seen
    with monkeypatch.context() as patch:
        original, given = head.get_loss, []
        patch.setattr(head, "get_loss", lambda *args: given.append(args) or original(*args))
        adapter.model(batch)
    (outputs,) = given
    if not isinstance(adapter, (RCNN, SOLOv2)):
        outputs = outputs[0]
    found = dict(zip(HEADS_IN_ORDER[type(adapter)], outputs))
    return {source: value if isinstance(value, list) else [value] for source, value in found.items() if source}


HEADS_IN_ORDER = {
    RetinaNet: ("head.cls", "head.box"),
    GFL: ("head.cls", "head.box_dist"),
    PicoDet: ("head.cls", "head.box_dist"),
    PPYOLOE: ("head.cls", "head.box_dist"),
    FCOS: ("head.cls", "head.box", "head.centerness"),
    TOOD: ("head.cls", "head.box"),
    YOLOX: ("head.cls", "head.box", "head.objectness"),
    RTMDet: ("head.cls", "head.box"),
    RCNN: ("head.objectness", "head.box"),
    SOLOv2: ("head.cls", "head.kernel", "head.mask"),
    SOLO: (None, "head.cls"),  # masks of different numbers of channels are not compared here
    RepPoints: ("head.cls", "head.points"),
}


def as_the_loss_has_it(adapter, source, levels):
    """What the head makes of a source's recorded tensors before its loss gets them."""
    if isinstance(adapter, FCOS) and source == "head.box":
        return [F.relu(x) for x in levels]
    if not isinstance(adapter, (PPYOLOE, TOOD, YOLOX)):
        return list(levels)
    # One tensor of all levels, the logits already as scores.
    if source in ("head.cls", "head.objectness"):
        return [_flat([F.sigmoid(x) for x in levels])]
    flat = _flat(levels)
    if isinstance(adapter, TOOD):
        points = _flat([_cells(x, 0.5) for x in levels])
        distances = _flat([scale(x.exp()) for x, scale in zip(levels, adapter.head.scales_regs)])
        return [paddle.concat([points - distances[..., :2], points + distances[..., 2:]], axis=-1)]
    if isinstance(adapter, YOLOX):
        centre, half = flat[..., :2] + _flat([_cells(x, 0.0) for x in levels]), flat[..., 2:].exp() * 0.5
        return [paddle.concat([centre - half, centre + half], axis=-1)]
    return [flat]


def _flat(maps):
    return paddle.concat([x.flatten(2).transpose([0, 2, 1]) for x in maps], axis=1)


def _cells(x, offset):
    """(1, 2, H, W): column and row of every cell."""
    rows, columns = (paddle.arange(size, dtype="float32") + offset for size in x.shape[2:])
    return paddle.stack(paddle.meshgrid(rows, columns)[::-1]).unsqueeze(0)


# What TOOD aligns its two tasks with comes after what is recorded, and hides it.
UNALIGNED = {"tood": ["TOODHead.use_align_head=false"]}


@each
def test_recorded_are_the_very_tensors_of_the_heads_own_loss_and_raw_in_eval_mode(family, recipe, monkeypatch):
    loaded = load(recipe, family, *UNALIGNED.get(family, []))
    adapter, batch = detector_for(enliven(build_student(loaded))), training_batch(loaded)
    model = adapter.model
    model.train()
    settle(model)
    taps = {source: [level.tap for level in adapter.levels(f"{source}[*]")] for source in HEADS[family]}
    paths = [tap.path for group in taps.values() for tap in group]
    with adapter.prepared(batch) as batch, Recorder(model, paths) as recorder:
        expected = of_the_loss(adapter, dict(batch), monkeypatch)
    trained = {source: [recorder.take(tap) for tap in group] for source, group in taps.items()}
    assert set(expected) == set(trained)
    for source, levels in trained.items():
        assert differing(as_the_loss_has_it(adapter, source, levels), list(expected[source])) == [], source
    model.eval()
    with paddle.no_grad(), Recorder(model, paths) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    for source, group in taps.items():
        for tap, wanted in zip(group, trained[source]):
            assert (recorder.take(tap) - wanted).abs().max() < 1e-4, source
    logits = trained["head.objectness" if isinstance(adapter, RCNN) else "head.cls"]
    assert min(float(x.min()) for x in logits) < 0, "scores, no logits"


@pytest.mark.parametrize("family", ["yolov3", "ppyolo"])
def test_yolos_fields_lie_in_one_map_behind_the_predicted_ious(family, detector):
    adapter = detector(family)
    convolution = adapter.model.yolo_head._sub_layers["yolo_output.1"]
    x, classes = paddle.rand([2, 12, 4, 4]), adapter.model.yolo_head.num_classes
    raw = convolution(x)[:, 3 if family == "ppyolo" else 0 :]
    with Recorder(adapter.model, ["yolo_head.yolo_output.1"]) as recorder:
        convolution(x)
    taken = {s: recorder.take(adapter.aliases()[s](1)) for s in ("head.box", "head.objectness", "head.cls")}
    for anchor in range(3):
        at = anchor * (5 + classes)
        assert (taken["head.box"][:, 4 * anchor : 4 * anchor + 4] == raw[:, at : at + 4]).all()
        assert (taken["head.objectness"][:, anchor] == raw[:, at + 4]).all()
        own = taken["head.cls"][:, classes * anchor : classes * (anchor + 1)]
        assert (own == raw[:, at + 5 : at + 5 + classes]).all()


def test_ppyoloes_evaluation_size_is_put_back(detector, monkeypatch):
    adapter = detector("ppyoloe")
    head = adapter.model.yolo_head
    size = head.eval_size
    assert size == [64, 64]
    adapter.levels("head.cls[*]")
    assert head.eval_size is size
    monkeypatch.setattr(head, "forward_eval", fail, raising=False)
    with pytest.raises(ZeroDivisionError):
        adapter.levels("head.cls[*]")
    assert head.eval_size is size


class Scales(paddle.nn.Layer):
    """A backbone that pools the image to given strides, after a convolution if it is to learn."""

    def __init__(self, strides, channels=None):
        super().__init__()
        self.strides = strides
        self.conv = paddle.nn.Conv2D(3, channels, 1) if channels else None

    def forward(self, batch):
        image = batch["image"] if self.conv is None else self.conv(batch["image"])
        return [F.avg_pool2d(image, stride) for stride in self.strides]


class Unknown(paddle.nn.Layer):
    """A detector that nobody wrote an adapter for, without neck and head."""

    def __init__(self, *strides, channels=None):
        super().__init__()
        self.backbone = Scales(strides, channels)

    def forward(self, batch):
        return {"loss": sum(x.mean() for x in self.backbone(batch))}


def test_an_unknown_detector_gets_the_generic_adapter():
    adapter = detector_for(Unknown(4, 8))
    assert type(adapter) is Detector
    for source in ("backbone[*]", "neck[*]"):
        assert [(x.stride, x.channels) for x in adapter.levels(source)] == [(4, 3), (8, 3)]
    with pytest.raises(UserError, match=r"named sources: backbone\[i\], neck\[i\]$"):
        adapter.levels("head.cls[*]")
