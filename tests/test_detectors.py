"""What differs between detector architectures: named sources, and the part of a teacher that has to run."""

import copy

import paddle
import pytest

from ppkd.build import build_model, build_student
from ppkd.detectors import Detector, Tap, detector_for
from ppkd.detectors.gfl import GFL, PicoDet
from ppkd.detectors.ppyoloe import PPYOLOE
from ppkd.detectors.retinanet import RetinaNet
from ppkd.detectors.yolov3 import YOLOv3
from ppkd.errors import UserError
from ppkd.model import TEACHER
from ppkd.recorders import Recorder
from ppkd.terms import Term, TermSpec, match_levels
from tests.conftest import enliven, training_batch
from tests.helpers_training import UNTRAINABLE, count_calls, differing, everything_in, fail, settle
from tests.test_recorders import hooks_on

KINDS = {"retinanet": RetinaNet, "ppyoloe": PPYOLOE, "gfl": GFL, "picodet": PicoDet, "yolov3": YOLOv3}
# Variants of a family: overrides of its tiny config.
VARIANTS = {
    "picodet apart": ("picodet", ["PicoHead.conv_feat.share_cls_reg=false"]),
    "ppyolo": ("yolov3", ["YOLOv3Head.iou_aware=true", "YOLOv3Loss.iou_aware_loss={name: IouAwareLoss}"]),
}
STRIDES = {
    "retinanet": [8, 16, 32, 64, 128], "ppyoloe": [32, 16, 8], "gfl": [8, 16, 32, 64], "picodet": [8, 16, 32],
    "yolov3": [32, 16, 8],
}  # fmt: skip
NECK = {"retinanet": [16] * 5, "ppyoloe": [96, 48, 24], "gfl": [16] * 4, "picodet": [16] * 3, "yolov3": [16, 12, 8]}
BODY = dict.fromkeys(("gfl", "picodet", "yolov3"), [(8, 16), (16, 32), (32, 32)])
BODY |= {"retinanet": [(8, 128), (16, 256), (32, 512)], "ppyoloe": [(8, 32), (16, 64), (32, 128)]}
MODULE = {
    "retinanet": ("neck.fpn_res4_sum", (16, 16)), "ppyoloe": ("neck.pan_stages.0", (32, 96)),
    "gfl": ("neck.fpn_res4_sum", (16, 16)), "picodet": ("neck.bottom_up_blocks.1", (32, 16)),
    "yolov3": ("neck.yolo_block.1", (16, 12)),
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
        found = adapter.levels(f"{source}[*]")
        assert [(x.stride, x.channels) for x in found] == [(s, channels(classes)) for s in STRIDES[family]]
        (one,) = adapter.levels(f"{source}[1]")
        for level in (one, found[1]):
            assert (level.source, level.stride, level.channels) == (f"{source}[1]", found[1].stride, found[1].channels)
        assert (one.tap.path, one.tap.call) == (found[1].tap.path, found[1].tap.call)


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
BEYOND = (
    r"was called \d times in this step; call 9 does not exist|has no 'head\.\w+\[9\]': head\.\w+ has \d levels"
)


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
    for function in ("get_loss", "post_process"):
        monkeypatch.setattr(head, function, fail, raising=False)
    monkeypatch.setattr(model, "forward", fail, raising=False)
    seen = []
    for wanted in ({"backbone"}, {"neck"}, {adapter.head_name}):
        adapter.run(dict(batch), wanted)
        seen.append([len(calls) for calls in parts])
    # PicoDet's head decodes boxes in eval mode; of it, the part that does not is called.
    assert seen == [[1, 0, 0], [2, 1, 0], [3, 2, 0 if isinstance(adapter, PicoDet) else 1]]


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
        patch.setattr(head, "get_loss", lambda outputs, *args: given.append(outputs) or original(outputs, *args))
        adapter.model(batch)
    (outputs,) = given
    return dict(zip(HEADS_IN_ORDER[type(adapter)], outputs))


HEADS_IN_ORDER = {
    RetinaNet: ("head.cls", "head.box"),
    GFL: ("head.cls", "head.box_dist"),
    PicoDet: ("head.cls", "head.box_dist"),
    PPYOLOE: ("head.cls", "head.box_dist"),
}


@each
def test_recorded_are_the_very_tensors_of_the_heads_own_loss_and_raw_in_eval_mode(
    family, detector, recipe, monkeypatch
):
    if family.split()[0] in UNTRAINABLE:
        pytest.skip("ppdet cannot train it on this Paddle")
    adapter, batch = detector(family), training_batch(load(recipe, family))
    model = adapter.model
    model.train()
    settle(model)
    taps = {source: [level.tap for level in adapter.levels(f"{source}[*]")] for source in HEADS[family]}
    paths = [tap.path for group in taps.values() for tap in group]
    with Recorder(model, paths) as recorder:
        expected = of_the_loss(adapter, dict(batch), monkeypatch)
    trained = {source: [recorder.take(tap) for tap in group] for source, group in taps.items()}
    assert set(expected) == set(trained)
    for source, levels in trained.items():
        wanted = expected[source]
        if family == "ppyoloe":  # one tensor of all levels, the classes already as scores
            levels = paddle.concat([x.flatten(2).transpose([0, 2, 1]) for x in levels], axis=1)
            levels = [paddle.nn.functional.sigmoid(levels) if source == "head.cls" else levels]
            wanted = [wanted]
        assert differing(list(levels), list(wanted)) == [], source
    model.eval()
    with paddle.no_grad(), Recorder(model, paths) as recorder:
        adapter.run(dict(batch), {adapter.head_name})
    for source, group in taps.items():
        for tap, wanted in zip(group, trained[source]):
            assert (recorder.take(tap) - wanted).abs().max() < 1e-4, source
    assert min(float(x.min()) for x in trained["head.cls"]) < 0, "scores, no logits"


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
    # A source of several tensors is a tuple of names.
    several = TermSpec("t", *[("head.cls[*]", "neck[*]")] * 2, {"name": "ld"})
    ((ours, theirs),) = match_levels(several, ppyoloe, retinanet)[:1]
    assert [x.source for x in (*ours, *theirs)] == ["head.cls[0]", "neck[0]", "head.cls[2]", "neck[2]"]
    one = TermSpec("t", "neck[0]", "neck[1]", {"name": "fgd"})
    assert [(a.source, b.source) for (a,), (b,) in match_levels(one, retinanet, ppyoloe)] == [("neck[0]", "neck[1]")]
    none = TermSpec("t", "backbone[*]", "neck[*]", {"name": "fgd"})
    with pytest.raises(UserError, match="t: student backbone.* strides .*4.*teacher neck.* none in common"):
        match_levels(none, detector_for(Far()), ppyoloe)


class Far(Unknown):
    def __init__(self):
        super().__init__()
        self.backbone.forward = lambda batch: [paddle.nn.functional.avg_pool2d(batch["image"], s) for s in (2, 4)]


# PP-YOLOE's target assignment.


@pytest.fixture
def distilled(recipe):
    """Function from overrides to a `DistillModel` of PP-YOLOE with lively heads, and a batch of four images."""

    def make(*overrides):
        loaded = recipe("ppyoloe", "ppyoloe", overrides=["TrainReader.batch_size=4", *overrides])
        model = build_model(loaded)
        enliven(model.student)
        return model, training_batch(loaded)

    return make


def used_by_the_loss(model, batch, monkeypatch):
    """The labels and scores that the student's own loss works with in a step, and the contexts that the terms got."""
    head, used, contexts = model.student.yolo_head, [], []
    box_loss, compare = head._bbox_loss, Term.compare
    with monkeypatch.context() as patch:
        patch.setattr(head, "_bbox_loss", lambda *args: used.append((args[3], args[5])) or box_loss(*args))
        patch.setattr(Term, "compare", lambda self, s, t, c: contexts.append(c) or compare(self, s, t, c))
        model(dict(batch))
    (labels, scores), assignment = used[0], contexts[0].assignment
    assert len(used) == 1
    return [labels, scores], [assignment.labels, assignment.scores]


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("assigner", ["student", "teacher"])
def test_terms_get_the_assignment_that_the_students_loss_used(epoch, assigner, distilled, monkeypatch):
    model, batch = distilled(f"distill.assigner={assigner}")
    used, recorded = used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)
    assert differing(used, recorded) == []
    assert (recorded[0] != model.student.yolo_head.num_classes).any(), "nothing was assigned"


def test_the_teachers_assignment_is_what_its_own_loss_would_make(distilled, monkeypatch):
    model, batch = distilled()
    batch["epoch_id"] = 1
    adapter = detector_for(model.teachers[TEACHER])
    with paddle.no_grad(), Recorder(adapter.model, [tap.path for tap in adapter.outputs()]) as recorder:
        adapter.run(dict(batch), {"yolo_head"})
    made = adapter.assign(recorder, batch)
    settle(adapter.model).train()
    settle(adapter.model)
    with Recorder(adapter.model, adapter.assigners) as recorder:
        adapter.model(dict(batch))
    own = adapter.assigned(recorder)
    assert (made.labels != made.background).any()
    assert (made.labels == own.labels).all()
    assert (made.boxes - own.boxes).abs().max() < 1e-3 and (made.scores - own.scores).abs().max() < 1e-4
    assert made.positive.sum() == (made.labels != made.background).astype("float32").sum()


def test_the_students_loss_takes_the_teachers_targets_in_dynamic_epochs_only(distilled, monkeypatch):
    model, batch = distilled("distill.assigner=teacher")
    by_teacher = [used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)[0] for epoch in (0, 1)]
    model._teacher_assigns = False
    by_student = [used_by_the_loss(model, {**batch, "epoch_id": epoch}, monkeypatch)[0] for epoch in (0, 1)]
    assert differing(by_teacher[0], by_student[0]) == [], "geometry alone"
    assert differing(by_teacher[1], by_student[1]), "the student's own predictions decided"
    assert detector_for(model.student).assigns_by_prediction({"epoch_id": 1})
    assert not detector_for(model.student).assigns_by_prediction({"epoch_id": 0})


def attributes(layer):
    """The names of all that is set on a layer; tensors become buffers."""
    return {*vars(layer), *layer._buffers, *layer._parameters, *layer._sub_layers}


def test_every_step_has_targets_of_its_own_and_the_head_keeps_none(distilled, monkeypatch):
    model, batch = distilled("distill.assigner=teacher")
    batch["epoch_id"] = 1
    head = model.student.yolo_head
    before = attributes(head)
    first, _ = used_by_the_loss(model, batch, monkeypatch)
    other = {key: value.flip(0) if isinstance(value, paddle.Tensor) else value for key, value in batch.items()}
    second, _ = used_by_the_loss(model, other, monkeypatch)
    again, _ = used_by_the_loss(model, batch, monkeypatch)
    assert differing(first, second) and differing(first, again) == []
    assert attributes(head) == before
    # The whole batch turned round: so are its targets.
    assert (first[0].flip(0) == second[0]).all()
    monkeypatch.setattr(head, "_bbox_loss", fail)
    with pytest.raises(ZeroDivisionError):
        model(dict(batch))
    monkeypatch.undo()
    assert attributes(head) == before


def test_given_changes_nothing_without_an_assignment(detector):
    adapter = detector("ppyoloe")
    before = attributes(adapter.head)
    with adapter.given(None):
        assert attributes(adapter.head) == before
    with detector("gfl").given(None):
        pass
    with Recorder(adapter.model, adapter.assigners) as recorder:
        pass
    assert adapter.assigned(recorder) is None
