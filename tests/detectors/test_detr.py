"""DETR and its kin: their sources are the model's own predictions, and sets of two of them are matched and teach."""

import math
from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd.bridge.workspace import registered_names
from ppkd.build import build_student
from ppkd.detectors import detector_for
from ppkd.detectors.context import Context
from ppkd.detectors.detr import DETR, _log_odds, _own
from ppkd.detectors.found import check_post_process
from ppkd.detectors.queries import apart
from ppkd.detectors.recorders import recording
from ppkd.engine.model import TEACHER, DistillModel
from ppkd.errors import UserError
from ppkd.recipe.plan import Plan, TermSpec
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.detectors.test_recorders import hooks_on
from tests.helpers_hosts import renamed
from tests.helpers_training import differing, everything_in

KINDS = ("detr", "deformable_detr", "dino", "rtdetr", "rtdetrv2", "mask_rtdetr")
# What only clones of PaddleDetection have.
OF_CLONES = {"rtdetr": "RTDETRTransformer", "rtdetrv2": "RTDETRTransformerv2", "mask_rtdetr": "MaskRTDETR"}
SETS = ("decoder.cls[*]", "decoder.box[*]")
SHARED = TermSpec("shared", SETS, SETS, {"name": "shared_queries", "general": 5, "specific": 4})
MATCH = TermSpec("match", SETS, SETS, {"name": "detr_match"})
FEATURES = TermSpec("neck", "neck[*]", "neck[*]", {"name": "pkd"}, student_connector="align")
DEEPEST = TermSpec("deepest", "neck.encoder", "neck.encoder", {"name": "cosine"}, student_connector="align")


def load(kind, size, shapes, *more):
    if OF_CLONES.get(kind, "DETR") not in registered_names():
        pytest.skip(f"this PaddleDetection has no {OF_CLONES[kind]}")
    return load_recipe(str(CONFIGS / f"{kind}_{size}.yml"), overrides=[f"dataset_dir={shapes}", *more])


def _lively(model):
    """DINO and RT-DETR have their heads in the transformer."""
    heads = (getattr(model.transformer, name, None) for name in ("dec_bbox_head", "bbox_head"))
    return enliven(model, model.detr_head, *filter(None, heads))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, shapes):
    """Kind, student, teacher and a batch."""
    small, wide = (load(request.param, size, shapes) for size in ("tiny", "wide"))
    student, teacher = (_lively(build_student(loaded)) for loaded in (small, wide))
    return request.param, student, teacher, training_batch(small), small.student["num_classes"]


def test_sources_are_what_the_model_predicts(pair):
    kind, _, teacher, batch, classes = pair
    teacher.eval()
    detector = detector_for(teacher)
    assert type(detector) is DETR
    found = {name: detector.levels(f"decoder.{name}[*]") for name in ("cls", "box", "query")}
    assert {name: (len(x), x[0].channels) for name, x in found.items()} == {
        "cls": (3, classes), "box": (3, 4), "query": (3, 64),
    }  # fmt: skip
    maps = [(x.stride, x.channels) for x in detector.levels("neck[*]")]
    strides = {"detr": (32,), **dict.fromkeys(OF_CLONES, (8, 16, 32))}.get(kind, (8, 16, 32, 64))
    assert maps == [(stride, 64) for stride in strides]
    (deepest,) = detector.levels("neck.encoder")
    assert (deepest.stride, deepest.channels) == maps[-1]
    image = {"image": batch["image"]}
    taps = [level.tap for levels in found.values() for level in levels]
    with paddle.no_grad(), recording(teacher, taps, ("transformer",)) as recorder:
        detector.run(image, {path.split(".")[0] for tap in taps for path in tap.paths})
    boxes, logits, *_ = teacher.detr_head(recorder.outputs["transformer"][0], None)
    last_cls, last_box = (recorder.take(found[name][-1].tap) for name in ("cls", "box"))
    scores = F.softmax(logits)[..., :-1] if kind == "detr" else F.sigmoid(logits)
    np.testing.assert_allclose(F.sigmoid(last_cls).numpy(), scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(last_box.numpy(), boxes.numpy(), atol=1e-5)
    assert not np.allclose(last_box.numpy(), recorder.take(found["box"][0].tap).numpy(), atol=1e-4)


def test_a_step_matches_sets_and_features_and_changes_nothing_else(pair):
    _, student, teacher, batch, _ = pair
    before = everything_in(teacher)
    model = DistillModel(student, {TEACHER: teacher}, Plan([MATCH, FEATURES, DEEPEST]))
    model.train()
    losses = model(dict(batch))
    terms = {name: float(value) for name, value in losses.items() if name.startswith(("match", "neck", "deepest"))}
    assert {"match.cls", "match.l1", "match.giou", "neck.s32", "deepest.s32"} - set(terms) <= {"deepest.s32"}
    assert all(math.isfinite(value) and value > 0 for name, value in terms.items() if not name.endswith("s64")), terms
    (match,) = (term for term in model.terms if term.label == "match")
    assert [theirs[0].source for _, theirs in match.pairs] == ["decoder.cls[1]", "decoder.cls[2]"]
    own = sum(value for name, value in losses.items() if name.startswith("match"))
    (gradient,) = paddle.grad([own], [next(iter(student.backbone.parameters()))], retain_graph=True, allow_unused=True)
    assert gradient is not None and float(gradient.abs().max()) > 0
    losses["loss"].backward()
    student.clear_gradients()
    assert differing(everything_in(teacher), before) == []
    assert hooks_on(student) == hooks_on(teacher) == 0


def _asked(model, batch):
    """The adapter of a model in eval mode, and a recorder of all that its decoder was given and made."""
    model.eval()
    detector = detector_for(model)
    taps = [level.tap for name in SETS for level in detector.levels(name)] + list(detector.asked.taps)
    with paddle.no_grad(), recording(model, taps) as recorder:
        detector.run(dict(batch), {path.split(".")[0] for tap in taps for path in tap.paths})
    return detector, recorder


def test_a_decoder_that_is_asked_its_own_queries_again_says_the_same(pair):
    _, _, teacher, batch, _ = pair
    detector, recorder = _asked(teacher, batch)
    with paddle.no_grad():
        again = detector.redecode(recorder, detector.asked.own(recorder))
    assert len(again) == 6
    for name in SETS:
        for level in detector.levels(name):
            np.testing.assert_allclose(again[level.source], recorder.take(level.tap), atol=2e-5)


def test_drawn_queries_are_new_ones_and_a_group_does_not_see_the_other(pair):
    kind, _, teacher, batch, _ = pair
    detector, recorder = _asked(teacher, batch)
    own, drawn = detector.asked.own(recorder), detector.asked.drawn(recorder, 5)
    for name, x in vars(drawn).items():
        assert (x is None) == (getattr(own, name) is None), name
        assert x is None or (x.shape == [2, 5, getattr(own, name).shape[2]] and bool(paddle.isfinite(x).all()))
    assert drawn.place is None or (float(drawn.place.min()) >= 0 and float(drawn.place.max()) <= 1)
    with paddle.no_grad():
        alone = detector.redecode(recorder, drawn)
        beside = detector.redecode(recorder, own.beside(drawn), apart([16, 5]))
        mixed = detector.redecode(recorder, own.beside(drawn))
    assert not bool((alone["decoder.cls[2]"] == beside["decoder.cls[2]"][:, :5]).all())
    gaps = [float((alone["decoder.cls[2]"] - x["decoder.cls[2]"][:, 16:]).abs().max()) for x in (beside, mixed)]
    assert gaps[1] > 1e-6 and (gaps[0] < 0.1 * gaps[1] or kind == "deformable_detr"), "its decoder alone takes no mask"


def test_both_decode_the_same_queries_once_and_equal_ones_agree(pair, monkeypatch):
    kind, student, teacher, batch, _ = pair
    asked, counts = [], dict.fromkeys(("student", "teacher"), 0)
    model = DistillModel(student, {TEACHER: teacher}, Plan([SHARED]))
    (term,) = model.terms
    for detector in (term._student, term._teacher):
        monkeypatch.setattr(detector, "redecode", partial(_seen, asked, detector.redecode))
    handles = []
    for side, decoder in (("student", student.transformer.decoder), ("teacher", teacher.transformer.decoder)):
        handles.append(decoder.register_forward_post_hook(partial(_count, counts, side)))
    model.train()
    losses = model(dict(batch))
    for handle in handles:
        handle.remove()
    assert counts == {"student": 2, "teacher": 2}, "one decoder forward more on each side"
    theirs, ours = asked
    assert (ours.place is None) == (theirs.place is None) == (kind == "detr")
    assert kind == "detr" or bool((ours.place == theirs.place).all())
    widths = [next(x for x in (q.content, q.position) if x is not None).shape for q in (theirs, ours)]
    assert widths == [[2, 9, 64], [2, 9, 32]]
    parts = {f"shared.{part}": float(losses[f"shared.{part}"]) for part in ("cls", "l1", "giou")}
    assert all(math.isfinite(value) and value > 0 for value in parts.values()), parts
    own = sum(losses[name] for name in parts)
    wanted = [next(iter(student.backbone.parameters())), *term.narrow.parameters()]
    gradients = paddle.grad([own], wanted, retain_graph=True, allow_unused=True)
    assert gradients[0] is not None and float(gradients[0].abs().max()) > 0
    assert any(x is not None and float(x.abs().max()) > 0 for x in gradients[1:]), "the linear layer learns nothing"


def _seen(asked, redecode, recorder, queries, mask=None):
    asked.append(queries)
    return redecode(recorder, queries, mask)


def _count(counts, side, layer, given, made):
    counts[side] += 1


@pytest.mark.parametrize("kind", ["detr", "dino"])
def test_shared_queries_of_an_equal_teacher_are_zero(kind, shapes):
    loaded = load(kind, "tiny", shapes)
    teacher, student = (_lively(build_student(loaded)) for _ in range(2))
    student.set_state_dict(teacher.state_dict())
    student.eval()  # no batch norm and nothing that is denoised tells them apart
    model = DistillModel(student, {TEACHER: teacher}, Plan([SHARED]))
    (term,) = model.terms
    assert not list(term.parameters())
    recorders = [_asked(each, training_batch(loaded))[1] for each in (student, teacher)]
    found = term.compare(recorders[0], term.of_teacher(recorders[1]), Context({}))
    assert found.keys() == {"cls", "l1", "giou"} and all(abs(float(value)) < 1e-5 for value in found.values()), found


def test_a_bank_keeps_shared_queries_with_what_the_teacher_makes_of_them(pair):
    _, student, teacher, batch, _ = pair
    (term,) = DistillModel(student, {TEACHER: teacher}, Plan([SHARED])).terms
    kept = term.to_keep(_asked(teacher, batch)[1])
    assert list(kept) == term.keeps and len(set(term.keeps)) == len(kept)
    (theirs, queries), _ = term.from_kept(kept)
    again = term._redecoded(term._teacher, _asked(teacher, batch)[1], queries, 1)
    for kept_layer, layer in zip(theirs, again):
        for x, y in zip(kept_layer, layer):
            np.testing.assert_allclose(x.numpy(), y.numpy(), atol=2e-5)


@pytest.mark.parametrize(("ours", "theirs"), [("detr", "dino"), ("dino", "deformable_detr")])
def test_decoders_that_are_asked_otherwise_are_refused_with_what_works(ours, theirs, shapes):
    student, teacher = build_student(load(ours, "tiny", shapes)), build_student(load(theirs, "wide", shapes))
    with pytest.raises(UserError, match="shared: the student's decoder is asked by .* detr_match compares"):
        DistillModel(student, {TEACHER: teacher}, Plan([SHARED]))


def test_a_detector_without_a_decoder_is_refused_by_shared_queries(shapes):
    student, teacher = (build_student(load("retinanet", size, shapes)) for size in ("tiny", "wide"))
    sets = TermSpec("shared", ("head.cls[*]", "head.box[*]"), ("head.cls[*]", "head.box[*]"), SHARED.loss)
    with pytest.raises(UserError, match="shared_queries knows no decoder of the student's RetinaNet; detr_match"):
        DistillModel(student, {TEACHER: teacher}, Plan([sets]))


@pytest.mark.parametrize("spec", [MATCH, SHARED])
@pytest.mark.parametrize("kind", ["detr", "deformable_detr"])
def test_other_classes_are_refused_in_one_line(kind, spec, shapes):
    student = build_student(load(kind, "tiny", shapes))
    other = load_recipe(str(CONFIGS / f"{kind}_wide.yml"), overrides=[f"dataset_dir={shapes}", "num_classes=7"])
    assert (detector_for(student).num_classes, detector_for(teacher := build_student(other)).num_classes) == (6, 7)
    with pytest.raises(UserError, match=r"decoder.cls\[\d\] has 6 channels, the teacher's decoder.cls\[\d\] 7") as told:
        DistillModel(student, {TEACHER: teacher}, Plan([spec]))
    assert "\n" not in str(told.value)


def test_a_student_that_denoises_gives_its_queries_alone(shapes):
    loaded = load("dino", "tiny", shapes)
    student, batch = build_student(loaded), training_batch(loaded)
    student.train()
    levels = [level for name in ("cls", "box", "query") for level in detector_for(student).levels(f"decoder.{name}[*]")]
    with recording(student, [level.tap for level in levels]) as recorder:
        student(batch)
    assert {recorder.take(level.tap).shape[1] for level in levels} == {12}
    assert recorder.outputs["transformer"][0][0].shape[2] > 12, "nothing was denoised"


def test_log_odds_of_a_softmax_are_those_of_its_scores():
    x = paddle.randn([2, 5, 4]) * 3
    np.testing.assert_allclose(F.sigmoid(_log_odds(x)).numpy(), F.softmax(x)[..., :-1].numpy(), atol=1e-6)
    sure = paddle.to_tensor([[[80.0, 0.0, 0.0]]], stop_gradient=False)
    _log_odds(sure).sum().backward()
    assert np.isfinite(sure.grad.numpy()).all()


@pytest.fixture(scope="module")
def wider(shapes):
    """A student, and a teacher of as many layers and queries, but wider."""
    models = (build_student(load("deformable_detr", "tiny", shapes, *more)) for more in ((), ("hidden_dim=64",)))
    return [_lively(model) for model in models]


def test_queries_are_compared_one_by_one_behind_a_linear_layer(wider, shapes):
    spec = TermSpec("query", "decoder.query[*]", "decoder.query[*]", {"name": "mimic"}, student_connector="align")
    student, teacher = wider
    model = DistillModel(student, {TEACHER: teacher}, Plan([spec]))
    model.train()
    losses = model(training_batch(load("deformable_detr", "tiny", shapes)))
    assert [term.label for term in model.terms] == ["query.decoder.query[0]", "query.decoder.query[1]"]
    own = [losses[term.label] for term in model.terms]
    assert all(math.isfinite(float(value)) and float(value) > 0 for value in own)
    sum(own).backward()
    assert all(float(term.connect_student[0].links[0].conv.weight.grad.abs().max()) > 0 for term in model.terms)
    student.clear_gradients()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (TermSpec("x", "decoder.query[*]", "decoder.query[*]", {"name": "mimic"}), "`student_connector: align`"),
        (TermSpec("x", "decoder.query[*]", "decoder.query[*]", {"name": "mimic"}, student_connector="resize"),
         r"connector resize takes maps .*decoder.query\[0\] is none: none, align, linear, projector take it"),
        (TermSpec("x", "decoder.cls[*]", "decoder.cls[*]", {"name": "cwd"}),
         r"loss cwd compares maps .*decoder.cls\[0\] is none: .*detr_match.*mimic"),
        (TermSpec("x", SETS, SETS, {"name": "ld"}), "loss ld compares maps .*detr_match"),
        (TermSpec("x", SETS, SETS, MATCH.loss | {"beta": "x"}), "loss detr_match: beta is 'x', expected a number"),
    ],
)  # fmt: skip
def test_what_takes_maps_alone_is_refused_for_sets_with_what_works(wider, spec, told):
    student, teacher = wider
    with pytest.raises(UserError, match=told):
        DistillModel(student, {TEACHER: teacher}, Plan([spec]))


def test_other_numbers_of_queries_are_refused_where_they_are_compared_one_by_one(wider, shapes):
    teacher = build_student(load("deformable_detr", "wide", shapes))
    spec = TermSpec("x", "decoder.box[*]", "decoder.box[*]", {"name": "mimic"})
    with pytest.raises(UserError, match="has 12 queries, the teacher's .* 16, and mimic .* one by one: detr_match"):
        DistillModel(wider[0], {TEACHER: teacher}, Plan([spec]))


def test_it_is_told_which_side_has_no_sets_and_what_any_two_families_have(wider, shapes):
    teacher = build_student(load("retinanet", "wide", shapes))
    with pytest.raises(UserError, match=r"the teacher's RetinaNet has no source .*decoder.cls.*: neck\[\*\] compares"):
        DistillModel(wider[0], {TEACHER: teacher}, Plan([MATCH]))


@pytest.mark.parametrize(("teacher", "match"), [("retinanet", "decoder.cls"), ("detr", "decoder.reference")])
def test_a_source_that_a_model_has_not_is_refused_with_those_that_it_has(teacher, match, shapes):
    with pytest.raises(UserError, match=f"has no source '{match}.*named sources: backbone"):
        detector_for(build_student(load(teacher, "tiny", shapes))).levels(f"{match}[*]")


def test_a_dry_run_makes_embeddings_for_the_batch_and_gives_all_layers(shapes):
    """RT-DETR's neck and transformer have an `eval_size`, its decoder gives the layer `eval_idx` alone in eval mode."""
    small = load("detr", "tiny", shapes)
    model = build_student(small)
    model.eval()
    part, seen = model.transformer, []
    part.eval_size, part.decoder.eval_idx = [640, 640], -1

    def look(module, given):
        seen.append((module.eval_size, module.decoder.training, module.training))
        if len(seen) == 2:
            raise KeyError("a forward that fails")

    part.register_forward_pre_hook(look)
    detector_for(model).run(training_batch(small), {"transformer"})
    assert (part.eval_size, part.decoder.training) == ([640, 640], False)
    with pytest.raises(KeyError, match="a forward that fails"):
        detector_for(model).run(training_batch(small), {"transformer"})
    assert seen == [(None, True, False)] * 2 and (part.eval_size, part.decoder.training) == ([640, 640], False)


def test_more_boxes_than_the_decoder_makes_are_refused(shapes):
    """Paddle's topk takes what lies behind the scores of an image, so it was silent while the batch had as many."""
    model = build_student(load("dino", "tiny", shapes, *renamed("dino")))
    check_post_process(model)
    model.post_process.num_top_queries = 73
    with pytest.raises(UserError, match="num_top_queries is 73, .* 12 queries of 6 classes: set 72 or less"):
        check_post_process(model)


def test_a_post_processing_of_another_host_is_told(shapes):
    """ppdet leaves it a text where the config has a section of it, and training does without it."""
    model = build_student(load("detr", "tiny", shapes))
    model.post_process = "DETRPostProcessOfLater"
    with pytest.raises(UserError, match="DETR.post_process: this PaddleDetection has no DETRPostProcessOfLater: it is"):
        check_post_process(model)


@pytest.mark.parametrize(("denoised", "groups"), [(0, 1), (4, 1), (0, 3), (4, 3)])
def test_of_several_groups_the_one_that_evaluates_is_taken_without_what_is_denoised(denoised, groups):
    group = [-1.0] * denoised + list(range(5))
    x = paddle.to_tensor([group + [-2.0] * (denoised + 5) * (groups - 1)]).unsqueeze(-1)
    assert _own(x, 5, groups).flatten().tolist() == [0, 1, 2, 3, 4]
    assert _own(x, None, groups).shape == x.shape
