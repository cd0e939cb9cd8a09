"""Students and teachers of different detectors: which levels meet, what is refused, and which weights are inherited."""

import logging

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd.bridge.weights import inherit
from ppkd.bridge.workspace import build_detector
from ppkd.build import build_model, build_student
from ppkd.detectors import detector_for
from ppkd.engine.build_terms import build_terms
from ppkd.engine.model import TEACHER, DistillModel
from ppkd.engine.pairing import match_levels
from ppkd.engine.terms import Sender, Term
from ppkd.errors import UserError
from ppkd.recipe.plan import Plan, TermSpec
from ppkd.terminal.log import logger
from tests.conftest import enliven, training_batch
from tests.detectors.test_detectors import Unknown
from tests.engine.test_against_ppdet_slim import as_ld_student
from tests.helpers_training import differing, everything_in, terms_of


def unknown(*strides):
    return detector_for(Unknown(*strides))


def spec(student="neck[*]", teacher="neck[*]", **options):
    return TermSpec("t", student, teacher, options.pop("loss", {"name": "mimic"}), **options)


def places(*args):
    """Places of the pairs that `match_levels` makes of single sources."""
    return [(ours.place, theirs.place) for (ours,), (theirs,) in match_levels(*args)]


@pytest.fixture
def detector(recipe):
    """Function from family to the adapter around a tiny detector."""
    return lambda family: detector_for(build_student(recipe(family, distil=False)))


# Which levels meet.


def test_levels_are_matched_by_stride_not_by_position(detector):
    fcos, ppyoloe = detector("fcos"), detector("ppyoloe")
    assert places(spec(), fcos, ppyoloe) == [(8, 8), (16, 16), (32, 32)]
    assert places(spec(), ppyoloe, fcos) == [(32, 32), (16, 16), (8, 8)]
    assert places(spec(max_levels=2), fcos, fcos) == [(8, 8), (16, 16)]
    # A source of several tensors is a tuple of names.
    several = spec(*[("head.cls[*]", "neck[*]")] * 2, loss={"name": "ld"})
    ((ours, theirs),) = match_levels(several, ppyoloe, fcos)[:1]
    assert [x.source for x in (*ours, *theirs)] == ["head.cls[0]", "neck[0]", "head.cls[2]", "neck[2]"]
    one = spec("neck[0]", "neck[1]")
    assert [(a.source, b.source) for (a,), (b,) in match_levels(one, fcos, ppyoloe)] == [("neck[0]", "neck[1]")]


def test_several_sources_of_a_side_go_together_by_stride(detector):
    """A backbone's levels go downwards, PP-YOLOE's neck and head upwards."""
    ppyoloe = detector("ppyoloe")
    several = spec(*[("backbone[*]", "head.cls[*]")] * 2, loss={"name": "score_l2"})
    for ours, theirs in match_levels(several, ppyoloe, ppyoloe):
        assert len({level.stride for level in (*ours, *theirs)}) == 1


def test_sources_of_a_side_that_cannot_go_together_are_told():
    student, strides = unknown(8, 16), {"a[*]": (8, 16), "b[*]": (16, 32)}
    student.levels = lambda source: unknown(*strides[source]).levels("neck[*]")
    told = r"t: neck\[0\] and neck\[0\] of the student go together, but have strides \[8, 16\] and \[16, 32\]"
    with pytest.raises(UserError, match=told):
        match_levels(spec(("a[*]", "b[*]"), ("neck[*]", "neck[*]")), student, unknown(8, 16))


@pytest.mark.parametrize(
    "student, teacher, expected",
    [
        ((2, 4), (8, 16), [(2, 8), (4, 8)]),
        ((32, 64), (8, 16), [(32, 16), (64, 16)]),
        ((4, 16, 64), (8, 32), [(4, 8), (16, 8), (64, 32)]),  # between two the first of them
        ((8,), (4, 16), [(8, 4)]),
        ((4, 8), (8, 16), [(8, 8)]),  # one in common is enough: the others are left out
    ],
)
def test_without_a_common_stride_each_level_pairs_with_the_nearest(student, teacher, expected):
    assert places(spec("backbone[*]", "backbone[*]"), unknown(*student), unknown(*teacher)) == expected


@pytest.mark.parametrize(
    "student, teacher, expected",
    [
        ((8, 16, 16), (8, 16, 16), [(0, 0), (1, 1), (2, 2)]),
        ((16, 16), (8, 16, 16, 16, 16), [(0, 2), (1, 4)]),
        ((16, 16), (16,), [(0, 0), (1, 0)]),
        ((16,), (16, 16), [(0, 1)]),
    ],
)
def test_several_levels_of_one_stride_pair_in_their_order_and_are_told_apart(student, teacher, expected):
    """The last ones of an SSD in small images: all met the teacher's last, under one name, which ended the step."""
    sender = Sender("teacher", unknown(*teacher))
    terms = build_terms(spec("backbone[*]", "backbone[*]"), unknown(*student), sender)
    met = [(ours.source, theirs.source) for ((ours,), (theirs,)), in (term.pairs for term in terms)]
    assert met == [(f"backbone[{ours}]", f"backbone[{theirs}]") for ours, theirs in expected]
    assert len({term.label for term in terms}) == len(terms) and terms[-1].label.startswith("t.s16")


def test_grids_meet_grids_of_as_many_cells_and_strides_do_not_meet_grids(detector):
    solov2, finer = detector("solov2"), detector("solov2")
    finer.head.seg_num_grids = [12, 10, 8, 6, 4]
    grids = spec("head.cls[*]", "head.cls[*]")
    assert places(grids, solov2, finer) == [((n, n), (n, n)) for n in (10, 8, 6, 4)]
    for student, teacher in ((solov2, detector("fcos")), (detector("fcos"), solov2)):
        with pytest.raises(UserError, match=r"t: student head\.cls\[\*\] has strides or grids .*none in common"):
            match_levels(grids, student, teacher)
    finer.head.seg_num_grids = [5, 5, 5, 5, 5]
    with pytest.raises(UserError, match=r"strides or grids \[\(10, 10\), .*head.* has \[\(5, 5\)\]: none in common"):
        match_levels(grids, solov2, finer)
    # Its features have strides like anybody's.
    assert places(spec(), solov2, detector("picodet")) == [(8, 8), (16, 16), (32, 32)]


# Whole steps.


@pytest.fixture
def step(recipe, caplog, monkeypatch):
    """Function from a recipe's arguments to the terms' values of a step, the `DistillModel` and what was logged."""

    def run(family, method, teacher, *overrides):
        monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
        caplog.set_level(logging.INFO, "ppkd")
        loaded = recipe(family, method, teacher=teacher, overrides=overrides)
        batch, model = training_batch(loaded), build_model(loaded)
        before = everything_in(model.teachers[TEACHER])
        model.train()
        losses = model(batch)
        losses["loss"].backward()
        assert differing(everything_in(model.teachers[TEACHER]), before) == []
        assert any(float(p.grad.abs().max()) > 0 for p in model.student.backbone.parameters() if p.grad is not None)
        terms = {name: float(value) for name, value in terms_of(losses, model).items()}
        assert all(np.isfinite(value) for value in terms.values())
        return terms, model, caplog.messages

    return run


@pytest.mark.parametrize("method", ["PKD", "FGD"])
def test_a_faster_rcnn_teaches_a_retinanet_on_the_strides_they_share(method, step):
    terms, model, log = step("retinanet", method, "faster_rcnn")
    name = method.lower()
    assert {".".join(term.split(".")[:2]) for term in terms} == {f"{name}.s{stride}" for stride in (8, 16, 32, 64)}
    assert all(sum(v for k, v in terms.items() if k.startswith(f"{name}.s{stride}")) > 0 for stride in (8, 16, 32, 64))
    assert f"{name}: no level of the teacher has the stride of neck[4]: left out" in log
    assert [(a.source, b.source) for ((a,), (b,)) in (term.pairs[0] for term in model.terms)] == [
        (f"neck[{i}]", f"neck[{i + 1}]") for i in range(4)
    ]


def test_a_gfl_teaches_a_picodet_on_neck_and_class_logits(step):
    terms, _, log = step("picodet", "CWD", "gfl", "distill.places=[neck, head.cls]")
    assert set(terms) == {f"cwd_{place}.s{stride}" for place in ("neck", "cls") for stride in (8, 16, 32)}
    assert all(value > 0 for name, value in terms.items() if not name.endswith("s32"))
    assert not any("left out" in line for line in log), "the teacher may have more levels than the student"


def test_a_ppyoloe_teaches_a_yolox_from_the_coarsest_level_to_the_finest(step):
    terms, model, _ = step("yolox", "CWD", "ppyoloe", "distill.places=[neck, head.cls]")
    assert set(terms) == {f"cwd_{place}.s{stride}" for place in ("neck", "cls") for stride in (8, 16, 32)}
    assert [(a.source, b.source) for ((a,), (b,)) in (term.pairs[0] for term in model.terms[:3])] == [
        ("neck[0]", "neck[2]"), ("neck[1]", "neck[1]"), ("neck[2]", "neck[0]"),
    ]  # fmt: skip


@pytest.mark.parametrize("student, teacher", [("picodet", "rtmdet"), ("rtmdet", "ppyoloe")])
def test_an_rtmdet_teaches_and_is_taught_by_others(student, teacher, step):
    terms, _, log = step(student, "CWD", teacher, "distill.places=[neck, head.cls]")
    assert set(terms) == {f"cwd_{place}.s{stride}" for place in ("neck", "cls") for stride in (8, 16, 32)}
    assert all(value > 0 for name, value in terms.items() if not name.endswith("s32"))
    assert any("its images are normalised otherwise than the student's" in line for line in log)


def test_a_teacher_gets_a_yoloxs_resized_images_normalised_in_its_own_way(recipe):
    """This YOLOX reads pixels from 0 to 255 and grows them to 96 x 96; PP-YOLOE wants them from 0 to 1."""
    unscaled = "{NormalizeImage: {mean: [0, 0, 0], std: [1, 1, 1], is_scale: false}}"
    steps = f"TrainReader.sample_transforms=[{{Decode: {{}}}}, {unscaled}, {{Permute: {{}}}}]"
    loaded = recipe("yolox", "PKD", teacher="ppyoloe", overrides=["YOLOX.size_range=[3, 3]", steps])
    model, batch, seen = build_model(loaded), training_batch(loaded), []
    for one in (model.teachers[TEACHER], model.student):
        one.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["image"].numpy()))
    model.train()
    model(batch)
    theirs, ours = seen
    assert ours.shape == (2, 3, 96, 96) and ours.max() > 100
    np.testing.assert_allclose(theirs, ours / 255, rtol=1e-5, atol=1e-6)


def test_levels_without_a_common_stride_are_compared_at_the_students_size():
    """A student of strides 4 and 32 beside a teacher of stride 8: one map is enlarged, and one averaged."""
    student, teacher = Unknown(4, 32, channels=5), Unknown(8)
    source = spec("backbone[*]", "backbone[*]", student_connector="align")
    model, batch = DistillModel(student, {TEACHER: teacher}, Plan([source])), {"image": paddle.rand([2, 3, 64, 64])}
    given = []
    for term in model.terms:
        term.loss.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    model.train()
    losses = model(batch)
    assert set(losses) == {"loss", "t.s4", "t.s32"}
    map_of_8 = F.avg_pool2d(batch["image"], 8)
    enlarged = F.interpolate(map_of_8, size=[16, 16], mode="bilinear", align_corners=False)
    for (ours, theirs), wanted in zip(given, (enlarged, F.avg_pool2d(map_of_8, 4))):
        assert ours.shape == theirs.shape == wanted.shape
        np.testing.assert_allclose(theirs.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    losses["loss"].backward()
    assert float(student.backbone.conv.weight.grad.abs().max()) > 0


def test_a_term_of_a_grid_is_named_after_its_cells():
    from ppkd.detectors import Level, Tap

    def label(cells):
        level = Level("head.cls[0]", Tap("head", grid=True), 3, None, cells)
        return Term(spec(), [((level,), (level,))]).label

    assert (label((12, 12)), label((12, 16))) == ("t.g12", "t.g12x16")


# Inherited weights.


@pytest.mark.parametrize("ours, theirs", [("retinanet", "gfl"), ("gfl", "tood"), ("yolov3", "ppyoloe")])
def test_nothing_is_inherited_from_another_kind_of_head(ours, theirs, detector):
    """They stand under one name, and parts of theirs have equal names and shapes without meaning the same."""
    student, teacher = detector(ours).model, enliven(detector(theirs).model)
    before = everything_in(student)
    assert inherit(student, teacher, ("head",)) == []
    assert differing(everything_in(student), before) == []


def test_nothing_is_inherited_from_another_kind_of_neck(detector):
    assert inherit(detector("picodet").model, detector("yolox").model, ("neck", "head")) == []


def test_the_neck_is_inherited_also_where_heads_differ(detector):
    student, teacher = detector("gfl").model, enliven(detector("tood").model)
    taken = inherit(student, enliven(teacher, teacher.neck), ("neck", "head"))
    assert taken == [name for name in student.state_dict() if name.startswith("neck.")] != []
    assert differing(student.neck.state_dict(), teacher.neck.state_dict()) == []


def test_a_head_inherits_from_one_of_a_related_class(recipe, detector):
    """PaddleDetection's student of localisation distillation has an LDGFLHead, its teacher a GFLHead."""
    config = recipe("gfl", distil=False).student
    student, teacher = build_detector({**config, **as_ld_student(config)}), enliven(detector("gfl").model)
    assert type(student.head) is not type(teacher.head)
    for ours, theirs in ((student, teacher), (enliven(teacher), student)):
        taken = inherit(ours, theirs, ("neck", "head"))
        assert taken == [name for name in ours.state_dict() if not name.startswith("backbone.")]
        assert differing(ours.head.state_dict(), theirs.head.state_dict()) == []


def test_a_related_head_gives_what_fits(detector):
    """PicoDet's is a GFL head of other convolutions; what scales the distances of a level is the same."""
    picodet, gfl = detector("picodet").model, enliven(detector("gfl").model)
    assert inherit(picodet, gfl, ("head",)) == [f"head.p{level}_feat.scale_reg" for level in (3, 4, 5)]


def test_the_log_says_how_much_was_inherited(step):
    given = ["FPN.out_channel=32", "GFLHead.conv_feat.feat_in=32"]
    _, model, log = step("gfl", "FGD", "tood", *given)
    count = len(model.student.neck.state_dict())
    line = next(line for line in log if "start from the teacher's" in line)
    assert line.startswith(f"student: {count} tensors of its neck and head ") and count > 0
    assert differing(model.student.neck.state_dict(), model.teachers[TEACHER].neck.state_dict()) == []
