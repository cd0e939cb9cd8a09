"""DETR and its kin: their sources are the model's own predictions, and sets of two of them are matched and teach."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd.bridge.compat.looks import refuses_types, says
from ppkd.build import build_student
from ppkd.detectors import detector_for
from ppkd.detectors.detr import DETR, _log_odds
from ppkd.detectors.recorders import recording
from ppkd.engine.model import TEACHER, DistillModel
from ppkd.errors import UserError
from ppkd.recipe.plan import Plan, TermSpec
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, enliven, training_batch
from tests.detectors.test_recorders import hooks_on
from tests.helpers_training import differing, everything_in

KINDS = ("detr", "deformable_detr", "dino")
SETS = ("decoder.cls[*]", "decoder.box[*]")
MATCH = TermSpec("match", SETS, SETS, {"name": "detr_match"})
FEATURES = TermSpec("neck", "neck[*]", "neck[*]", {"name": "pkd"}, student_connector="align")
DEEPEST = TermSpec("deepest", "neck.encoder", "neck.encoder", {"name": "cosine"}, student_connector="align")


def skip_where_the_host_cannot(kind):
    """Deformable attention of the wheel divides by integers, which Paddle 3 refuses."""
    from ppdet.modeling.transformers.deformable_transformer import MSDeformableAttention

    divides = says(MSDeformableAttention, r"offset_normalizer = value_spatial_shapes\.flip\(\[1\]\)\.reshape")
    if kind != "detr" and divides and refuses_types("float32", "int64"):
        pytest.skip(f"{kind}: this ppdet's deformable attention does not run on this Paddle")


def load(kind, size, shapes):
    return load_recipe(str(CONFIGS / f"{kind}_{size}.yml"), overrides=[f"dataset_dir={shapes}"])


def _lively(model):
    """DINO has its head in the transformer."""
    return enliven(model, model.detr_head, *filter(None, [getattr(model.transformer, "dec_bbox_head", None)]))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, shapes):
    """Kind, student, teacher and a batch."""
    skip_where_the_host_cannot(request.param)
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
    assert maps == [(32, 64)] if kind == "detr" else maps == [(8, 64), (16, 64), (32, 64), (64, 64)]
    (deepest,) = detector.levels("neck.encoder")
    assert (deepest.stride, deepest.channels) == maps[-1]
    image = {"image": batch["image"]}
    taps = [level.tap for levels in found.values() for level in levels]
    with paddle.no_grad(), recording(teacher, taps, ("transformer",)) as recorder:
        detector.run(image, {path.split(".")[0] for tap in taps for path in tap.paths})
    boxes, logits, _ = teacher.detr_head(recorder.outputs["transformer"][0], None)
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


def test_a_student_that_denoises_gives_its_queries_alone(shapes):
    skip_where_the_host_cannot("dino")
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
