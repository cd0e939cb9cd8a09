"""What differs between detector architectures: named sources, and the part of a teacher that has to run."""

import copy

import paddle
import pytest

from ppkd.build import build_student
from ppkd.detectors import Detector, Tap, detector_for
from ppkd.detectors.ppyoloe import PPYOLOE
from ppkd.detectors.retinanet import RetinaNet
from ppkd.errors import UserError
from ppkd.recorders import Recorder
from ppkd.terms import TermSpec, match_levels
from tests.conftest import FAMILIES, training_batch
from tests.helpers_training import count_calls, differing, everything_in, fail
from tests.test_recorders import hooks_on

KINDS = {"retinanet": RetinaNet, "ppyoloe": PPYOLOE}
STRIDES = {"retinanet": [8, 16, 32, 64, 128], "ppyoloe": [32, 16, 8]}
NECK = {"retinanet": [16] * 5, "ppyoloe": [96, 48, 24]}
BODY = {"retinanet": [(8, 128), (16, 256), (32, 512)], "ppyoloe": [(8, 32), (16, 64), (32, 128)]}
MODULE = {"retinanet": ("neck.fpn_res4_sum", (16, 16)), "ppyoloe": ("neck.pan_stages.0", (32, 96))}
# Source -> channels a class or a box takes: three anchors a place; four edges of seventeen bins.
HEADS = {
    "retinanet": {"head.cls": lambda classes: 3 * classes, "head.box": lambda classes: 3 * 4},
    "ppyoloe": {"head.cls": lambda classes: classes, "head.box_dist": lambda classes: 4 * 17},
}
each = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def detector(recipe):
    """Function from family to the adapter around a tiny detector."""
    return lambda family: detector_for(build_student(recipe(family, distil=False)))


@each
def test_sources_have_the_strides_and_channels_of_the_model(family, detector, recipe):
    adapter, classes = detector(family), recipe(family, distil=False).student["num_classes"]
    assert type(adapter) is KINDS[family]
    assert [(x.stride, x.channels) for x in adapter.levels("backbone[*]")] == BODY[family]
    expected = list(zip(STRIDES[family], NECK[family]))
    for source in ("neck[*]", "neck"):
        found = adapter.levels(source)
        assert [(x.stride, x.channels) for x in found] == expected
        assert [(x.source, x.tap) for x in found] == [(f"neck[{i}]", Tap("neck", item=i)) for i in range(len(found))]
    for source, channels in HEADS[family].items():
        found = adapter.levels(f"{source}[*]")
        assert [(x.stride, x.channels) for x in found] == [(s, channels(classes)) for s in STRIDES[family]]
        assert adapter.levels(f"{source}[1]") == [found[1]]


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
    with pytest.raises(UserError, match=r"source 'nek\[0\]'; nearest: neck.*named sources: backbone\[i\], neck\[i\]"):
        adapter.levels("nek[0]")
    with pytest.raises(UserError, match="has no source 'head.obj"):
        adapter.levels("head.objectness[0]")
    with pytest.raises(UserError, match=r"neck returns \d tensors; neck\[9\] does not exist"):
        adapter.levels("neck[9]")
    with pytest.raises(UserError, match="is not a source"):
        adapter.levels("neck[a]")


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
    adapter, batch = detector(family), training_batch(recipe(family))
    model = adapter.model
    model.eval()
    head = getattr(model, adapter.head_name)
    parts = [count_calls(layer) for layer in (model.backbone, model.neck, head)]
    for function in ("get_loss", "post_process"):
        monkeypatch.setattr(head, function, fail, raising=False)
    monkeypatch.setattr(model, "forward", fail, raising=False)
    seen = []
    for wanted in ({"backbone"}, {"neck"}, {adapter.head_name}):
        adapter.run(dict(batch), wanted)
        seen.append([len(calls) for calls in parts])
    assert seen == [[1, 0, 0], [2, 1, 0], [3, 2, 1]]


@each
def test_recorded_tensors_are_those_of_the_whole_model(family, detector, recipe):
    """Also at a training size that differs from the size for which the head keeps its anchors."""
    adapter = detector(family)
    model, sources = adapter.model, ["neck", *HEADS[family]]
    model.eval()
    taps = [level.tap for source in sources for level in adapter.levels(f"{source}[*]")]
    batch = {"image": paddle.rand([2, 3, 64, 64]), "im_shape": paddle.full([2, 2], 64.0)}
    batch["scale_factor"] = paddle.ones([2, 2])
    taken = []
    for run in (lambda: adapter.run(dict(batch), {adapter.head_name}), lambda: model(dict(batch))):
        with paddle.no_grad(), Recorder(model, [tap.path for tap in taps]) as recorder:
            run()
        taken.append([recorder.take(tap) for tap in taps])
    assert differing(*taken) == []

    batch["image"] = paddle.rand([2, 3, 96, 128])
    with paddle.no_grad(), Recorder(model, [tap.path for tap in taps]) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    count = len(STRIDES[family])
    sizes = [[-(-96 // stride), -(-128 // stride)] for stride in STRIDES[family]]
    assert [recorder.take(tap).shape[2:] for tap in taps] == sizes * (len(taps) // count)


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


class Body(paddle.nn.Layer):
    def forward(self, batch):
        return [paddle.nn.functional.avg_pool2d(batch["image"], stride) for stride in (4, 8)]


class Unknown(paddle.nn.Layer):
    """A detector that nobody wrote an adapter for, without a neck."""

    def __init__(self):
        super().__init__()
        self.backbone = Body()


def test_an_unknown_detector_gets_the_generic_adapter():
    adapter = detector_for(Unknown())
    assert type(adapter) is Detector
    assert [(x.stride, x.channels) for x in adapter.levels("backbone[*]")] == [(4, 3), (8, 3)]
    with pytest.raises(UserError, match=r"named sources: backbone\[i\]$"):
        adapter.levels("neck[*]")


def test_levels_are_matched_by_stride_not_by_position(detector):
    retinanet, ppyoloe = detector("retinanet"), detector("ppyoloe")

    def strides(student, teacher, **options):
        spec = TermSpec("t", "neck[*]", "neck[*]", {"name": "fgd"}, **options)
        return [(ours.stride, theirs.stride) for (ours,), (theirs,) in match_levels(spec, student, teacher)]

    assert strides(retinanet, ppyoloe) == [(8, 8), (16, 16), (32, 32)]
    assert strides(ppyoloe, retinanet) == [(32, 32), (16, 16), (8, 8)]
    assert strides(retinanet, retinanet, max_levels=2) == [(8, 8), (16, 16)]
    one = TermSpec("t", "neck[0]", "neck[1]", {"name": "fgd"})
    assert [(a.source, b.source) for (a,), (b,) in match_levels(one, retinanet, ppyoloe)] == [("neck[0]", "neck[1]")]
    none = TermSpec("t", "backbone[*]", "neck[*]", {"name": "fgd"})
    with pytest.raises(UserError, match="t: student backbone.* strides .*4.*teacher neck.* none in common"):
        match_levels(none, detector_for(Far()), ppyoloe)


class Far(Unknown):
    def __init__(self):
        super().__init__()
        self.backbone.forward = lambda batch: [paddle.nn.functional.avg_pool2d(batch["image"], s) for s in (2, 4)]
