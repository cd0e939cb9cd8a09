"""PaddleDetection's own distillation, run beside ours on the same tensors: equal where it is right, or asked for."""

from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from ppkd.bridge.ground_truth import BOXES, VALID
from ppkd.bridge.workspace import build_detector, create, import_ppdet, scope
from ppkd.detectors import Level, Tap
from ppkd.detectors.context import Assignment, Context
from ppkd.engine.model import DistillModel
from ppkd.engine.terms import Term
from ppkd.losses.atss import atss_regions, square_anchors
from ppkd.losses.cwd import cwd
from ppkd.losses.ppyoloe import PPYOLOELoss
from ppkd.losses.yolov3 import yolov3_parts
from ppkd.methods import plan
from ppkd.recipe.method import MethodSpec
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, training_batch
from tests.helpers_training import PADDLE

import_ppdet()
from ppdet.slim import distill_loss, distill_model  # noqa: E402

AS_PADDLEDET = {"numerics": "paddledet"}
fgd_runs = pytest.mark.skipif(PADDLE >= 3, reason="FGDFeatureLoss: type promotion of float32 and int32 on Paddle 3")
DISTILLERS = [pytest.param("fgd", marks=fgd_runs), "cwd", "pkd", "mimic"]


def _close(ours, theirs, rel=1e-5):
    assert float(theirs) != 0
    assert float(ours) == pytest.approx(float(theirs), rel=rel)


# --- heads: the same tensors ----------------------------------------------------------------------


def test_yolov3_parts():
    anchors, classes = 3, 4
    sides = [
        [tuple(paddle.randn([2, anchors * n, size, size]) for n in (4, 1, classes)) for size in (4, 8)]
        for _ in range(2)
    ]
    models = []
    for side in sides:
        pairs = []
        for triple in side:
            fields = (x.reshape([2, anchors, -1, *x.shape[2:]]) for x in triple)
            box, objectness, scores = (x.transpose([0, 1, 3, 4, 2]) for x in fields)
            pairs.append([*(box[..., i : i + 1] for i in range(4)), objectness, scores])
        models.append(SimpleNamespace(yolo_head=SimpleNamespace(loss=SimpleNamespace(distill_pairs=pairs))))
    theirs = distill_loss.DistillYOLOv3Loss(weight=1000)(models[1], models[0])
    ours = 1000 * sum(sum(yolov3_parts(s, t).values()) for s, t in zip(*sides))
    _close(ours, theirs)


WEIGHTS = {"class": 1.5, "iou": 2.5, "dfl": 0.5}


def _ppyoloe_heads(classes=5, bins=17):
    """Maps of two levels of student and teacher, and an assignment to their 20 places."""
    sizes = ((4, 4), (2, 2))
    sides = [tuple([paddle.randn([2, c, *size]) for size in sizes] for c in (classes, 4 * bins)) for _ in range(2)]
    labels = paddle.to_tensor(np.where(np.arange(40) % 4, classes, np.arange(40) % classes).reshape(2, 20))
    scores = F.one_hot(labels, classes + 1)[..., :-1] * paddle.rand([2, 20, 1])
    return sides, Assignment(labels, None, scores, background=classes)


def _distill_pairs(side, assignment, bins=17):
    """What PaddleDetection's head keeps of a forward pass: probabilities and, of positive places, boxes and edges."""
    scores, edges = (paddle.concat([x.flatten(2).transpose([0, 2, 1]) for x in levels], axis=1) for levels in side)
    positive = assignment.labels != assignment.background
    edges = edges[positive].reshape([-1, 4, bins])
    distance = (F.softmax(edges, axis=-1) * paddle.arange(bins, dtype="float32")).sum(-1)
    return {
        "pred_cls_scores": F.sigmoid(scores),
        "pos_num": assignment.scores.sum().clip(min=1.0),
        "mask_positive_select": positive,
        "pred_bboxes_pos": paddle.concat([3 - distance[:, :2], 3 + distance[:, 2:]], axis=1),
        "pred_dist_pos": edges,
        "bbox_weight": assignment.scores.sum(-1)[positive].unsqueeze(-1),
    }


@pytest.mark.parametrize("only", ["class", "iou", "dfl", "kd"])
def test_ppyoloe_parts(only):
    sides, assignment = _ppyoloe_heads()
    student, teacher = (
        SimpleNamespace(yolo_head=SimpleNamespace(num_classes=5, distill_pairs=_distill_pairs(side, assignment)))
        for side in sides
    )
    weights = {name: float(name == only) * weight for name, weight in WEIGHTS.items()}
    kd = {"weight": 20000 if only == "kd" else 0, "T": 10}
    upstream = distill_loss.DistillPPYOLOELoss(
        loss_weight={"logits": 1.0, "feat": 1.0}, logits_loss_weight=weights, logits_ld_distill=True,
        logits_ld_params=kd, feat_distill=False,
    )  # fmt: skip
    theirs, _ = upstream(teacher, student)
    loss = PPYOLOELoss(*weights.values(), kd_weight=kd["weight"], kd_temp=kd["T"], kd_per_class=False)
    # Its softmax and its logarithm cancel: at temperature 10 of probabilities all but a few digits are gone.
    _close(loss(*sides, assignment, 0)[only], theirs, rel=1e-3 if only == "kd" else 1e-5)


def test_kd_weighs_twenty_times_less_on_four_classes_by_default():
    sides, assignment = _ppyoloe_heads(classes=4)
    ours, theirs = (
        PPYOLOELoss(kd_weight=20000, kd_per_class=per_class)(*sides, assignment, 0)["kd"] for per_class in (True, False)
    )
    _close(ours * 400, theirs)


# --- features: one pair of maps -------------------------------------------------------------------

FEATURES = {
    "fgd": distill_loss.FGDFeatureLoss,
    "cwd": distill_loss.CWDFeatureLoss,
    "pkd": distill_loss.PKDFeatureLoss,
    "mimic": distill_loss.MimicFeatureLoss,
}
# Large enough that each part of FGD has a say in the sum.
PARAMS = {"fgd": {"alpha_fgd": 0.1, "beta_fgd": 0.2, "gamma_fgd": 0.3, "lambda_fgd": 1e-3}, "cwd": {"tau": 2.0}}
BOXES_OF_TWO = [[[4.0, 6.0, 30.0, 25.0], [10.0, 8.0, 50.0, 44.0]], [[1.0, 2.0, 20.0, 40.0], [0.0] * 4]]


def _term(distiller, ours=4, teachers=6, numerics="paddledet", **params):
    """The term of a PPYOLOEDistill file with this distiller alone, between maps of so many channels."""
    method = MethodSpec(
        "PPYOLOEDistill",
        {"logits_distill": False, "feat_distiller": distiller, "feat_distill_params": params},
        options={"numerics": numerics},
    )
    (spec,) = plan(method).terms
    levels = [(Level("neck[0]", Tap("neck"), channels, 8),) for channels in (ours, teachers)]
    return Term(spec, [tuple(levels)])


def _copy_adapters(upstream, term):
    """Give our term the weights of PaddleDetection's module."""
    pairs = []
    if getattr(upstream, "align", None) is not None:
        connector = term.connect_student[0].links[0]
        pairs.append((upstream.align, connector.align.conv if hasattr(connector, "align") else connector.conv))
    if hasattr(upstream, "conv_mask_s"):
        loss = term.loss
        pairs += [(upstream.conv_mask_s, loss.conv_mask_s), (upstream.conv_mask_t, loss.conv_mask_t)]
        pairs += zip(upstream.stu_conv_block, loss.channel_add_s)
        pairs += zip(upstream.tea_conv_block, loss.channel_add_t)
    for theirs, ours in pairs:
        state = theirs.state_dict()
        assert state.keys() - ours.state_dict().keys() <= {"bias"}  # which changes nothing, and which ours may not have
        for name, parameter in ours.state_dict().items():
            value = state[name].flatten(1).t() if isinstance(ours, nn.Linear) and name == "weight" else state[name]
            parameter.set_value(value.reshape(parameter.shape))


def _inputs():
    """A batch as both sides want it: two images with boxes, the second padded."""
    boxes = paddle.to_tensor(BOXES_OF_TWO)
    batch = {"image": paddle.zeros([2, 3, 48, 56]), "im_shape": paddle.to_tensor([[48.0, 56.0], [40.0, 52.0]])}
    batch |= {"gt_bbox": boxes, BOXES: boxes, VALID: (boxes.sum(-1) > 0).astype("float32")}
    return batch


def _maps(ours=4, teachers=6):
    student, teacher = paddle.randn([2, ours, 6, 7]) * 2, paddle.randn([2, teachers, 6, 7])
    student.stop_gradient = False
    return student, teacher


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("channels", [4, 6], ids=["aligned", "equal"])
@pytest.mark.parametrize("distiller", DISTILLERS)
def test_feature_losses_of_paddledet_numerics(distiller, channels, normalize):
    if distiller == "pkd" and (channels == 4 or not normalize):
        pytest.skip("PaddleDetection's wants equal shapes, and without normalize is no correlation")
    params = PARAMS.get(distiller, {})
    upstream = FEATURES[distiller](student_channels=channels, teacher_channels=6, normalize=normalize, **params)
    term = _term(distiller, channels, normalize=normalize, **params)
    _copy_adapters(upstream, term)
    student, teacher = _maps(channels)
    batch = _inputs()
    theirs = upstream(student, teacher, batch)
    (expected,) = paddle.grad(theirs, student)
    ours = sum(term([[student]], [[teacher]], Context(batch)).values()) * term.weight(0)
    _close(ours, theirs)
    ours.backward()
    np.testing.assert_allclose(student.grad.numpy(), expected.numpy(), atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("distiller", ["fgd", "cwd", "mimic"])
def test_adapters_of_paddledet_numerics_are_never_trained(distiller):
    frozen, trained = (_term(distiller, numerics=numerics) for numerics in ("paddledet", "authors"))
    for term in (frozen, trained):
        student, teacher = _maps()
        sum(term([[student]], [[teacher]], Context(_inputs())).values()).backward()
    assert frozen.parameters() and trained.parameters()
    assert all(x.stop_gradient and not x.trainable and x.grad is None for x in frozen.parameters())
    assert all(x.trainable and x.grad is not None for x in trained.parameters())


@pytest.mark.parametrize(("size", "missing"), [((100, 168), 0.186), ((50, 84), 0.06)])
def test_cwd_of_paddledet_is_too_small_on_large_maps(size, missing):
    student, teacher = paddle.randn([1, 16, *size]), paddle.randn([1, 16, *size])
    theirs = float(distill_loss.CWDFeatureLoss(16, 16)(student, teacher))
    assert theirs == pytest.approx(float(cwd(student, teacher, divergence="kl_eps")), rel=1e-5)
    assert theirs / float(cwd(student, teacher)) == pytest.approx(1 - missing, abs=0.01)


def test_cwd_of_paddledet_lacks_the_square_of_tau():
    student, teacher = _maps(6)
    theirs = float(distill_loss.CWDFeatureLoss(6, 6, tau=3.0)(student, teacher))
    assert float(cwd(student, teacher, tau=3.0)) == pytest.approx(9 * theirs, rel=0.01)


@fgd_runs
def test_the_context_block_of_paddledet_is_dead_and_ours_learns():
    upstream, term = distill_loss.FGDFeatureLoss(6, 6), _term("fgd", 6, numerics="authors", lambda_fgd=1e-3)
    blocks = {upstream: upstream.stu_conv_block, term: term.loss.channel_add_s}
    for _ in range(2):
        student, teacher = _maps(6)
        upstream(student, teacher, _inputs()).backward()
        sum(term([[student]], [[teacher]], Context(_inputs())).values()).backward()
        moving = {owner: float(block[0].weight.grad.abs().max()) for owner, block in blocks.items()}
        for block in blocks.values():
            for parameter in block.parameters():
                parameter.set_value(parameter - parameter.grad)
                parameter.clear_gradient()
    assert moving[upstream] == 0 and moving[term] > 0


@fgd_runs
def test_fgd_of_a_batch_without_boxes_fails_there_and_not_here():
    student, teacher = _maps(6)
    nothing = {"gt_bbox": [paddle.zeros([0, 4])] * 2, "im_shape": _inputs()["im_shape"]}
    with pytest.raises(Exception, match="."):
        upstream = distill_loss.FGDFeatureLoss(6, 6)(student, teacher, nothing)
        assert bool(paddle.isfinite(upstream)), "no number"
    batch = _inputs() | {BOXES: paddle.zeros([2, 0, 4]), VALID: paddle.zeros([2, 0])}
    assert np.isfinite(float(sum(_term("fgd", 6)([[student]], [[teacher]], Context(batch)).values())))


# --- whole models ---------------------------------------------------------------------------------


def _load(shapes, student, slim, *overrides):
    given = [f"dataset_dir={shapes}", "teacher.pretrain_weights=none", *overrides]
    return load_recipe(str(CONFIGS / f"{student}.yml"), str(CONFIGS / f"{slim}.yml"), given)


def _wake(model, batch):
    """Give a model the batch's statistics, and a head whose predictions differ from place to place."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and any(part in name for part in ("pred_", "gfl_head_", "yolo_output")):
            parameter.set_value(paddle.randn(parameter.shape) * (1.5 / np.prod(parameter.shape[1:]) ** 0.5))
    norms = [layer for layer in model.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    former = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model(dict(batch))
    for norm, momentum in zip(norms, former):
        norm._momentum = momentum
    return model


def _ours(loaded, batch):
    """Student and teacher with weights of their own, and our model around them."""
    configs = loaded.student, loaded.teachers["teacher"].config
    student, teacher = (_wake(build_detector(config), batch) for config in configs)
    model = DistillModel(student, {"teacher": teacher}, plan(loaded.method))
    model.epoch = batch["epoch_id"]
    model.train()
    return model


def _theirs(kind, loaded, model, loss=None, changes=lambda config: {}):
    """PaddleDetection's model around copies of our student and teacher, without its constructor."""
    sides = []
    configs = loaded.student, loaded.teachers["teacher"].config
    for original, config in zip((model.student, model.teachers["teacher"]), configs):
        config = {**config, **changes(config)}
        with scope(config):
            copy = create(config["architecture"])
        missing, unexpected = copy.set_state_dict(original.state_dict())
        assert not missing and not unexpected
        sides.append(copy)
    upstream = kind.__new__(kind)
    nn.Layer.__init__(upstream)
    upstream.student_model, upstream.teacher_model = sides
    upstream.distill_loss = loss
    upstream.arch = type(sides[0]).__name__
    upstream.train()
    return upstream


def _norms_in_eval_mode(teacher):
    """PaddleDetection's teacher takes its training path with the statistics of the batch; here with its own."""
    head = teacher.yolo_head if hasattr(teacher, "yolo_head") else teacher.head
    teacher.eval()
    teacher.training = head.training = True


def as_twin(config):
    """What to change in a PP-YOLOE config for PaddleDetection's distillation."""
    parts = {"backbone": "CSPResNet", "neck": "CustomCSPPAN", "yolo_head": "PPYOLOEHead", "post_process": None}
    return {"architecture": "PPYOLOE", "for_distill": True, "PPYOLOE": {**parts, "for_distill": True}}


@pytest.mark.parametrize("distiller", DISTILLERS)
def test_ppyoloe_step(shapes, distiller):
    """Of the static assigner, and of the dynamic one on the teacher's predictions."""
    width = 0.125 if distiller == "pkd" else 0.25  # PaddleDetection's PKD has no adapter
    loaded = _load(
        shapes, "ppyoloe_tiny", "ppyoloe_ppyoloe", "distill.numerics=paddledet", "distill.alpha=0.125",
        f"distill.feat_distiller={distiller}", f"teacher.width_mult={width}",
    )  # fmt: skip
    batch = training_batch(loaded)
    model = _ours(loaded, batch)
    loss = distill_loss.DistillPPYOLOELoss(
        logits_ld_distill=True, feat_distiller=distiller, student_width_mult=0.125, teacher_width_mult=width
    )
    upstream = _theirs(distill_model.PPYOLOEDistillModel, loaded, model, loss, as_twin)
    _norms_in_eval_mode(upstream.teacher_model)
    features = [term for term in model.terms if term.spec.name == "feat"]
    for module, term in zip(loss.distill_feat_loss_modules, features, strict=True):
        _copy_adapters(module, term)
    for epoch in (0, 1):
        model.epoch = batch["epoch_id"] = epoch
        losses, theirs = model(dict(batch)), upstream(dict(batch))
        _close(losses["loss"], theirs["loss"], rel=1e-4)
        for name, key in (("logits.", "logits_loss"), ("feat.", "feat_loss")):
            _close(sum(value for part, value in losses.items() if part.startswith(name)), theirs[key], rel=1e-4)
    for side in (losses["loss"], theirs["loss"]):
        side.backward()
    ours, theirs = (x.yolo_head.pred_reg for x in (model.student, upstream.student_model))
    for mine, other in zip(ours, theirs):
        expected = other.weight.grad.numpy()
        np.testing.assert_allclose(mine.weight.grad.numpy(), expected, atol=1e-3 * np.abs(expected).max())


def test_yolov3_step(shapes):
    loaded = _load(shapes, "yolov3_tiny", "yolov3_yolov3")
    batch = training_batch(loaded)
    model = _ours(loaded, batch)
    upstream = _theirs(distill_model.DistillModel, loaded, model, distill_loss.DistillYOLOv3Loss(weight=1000))
    _norms_in_eval_mode(upstream.teacher_model)
    losses, theirs = model(dict(batch)), upstream(dict(batch))
    _close(sum(value for name, value in losses.items() if name.startswith("yolov3.")), theirs["distill_loss"])
    _close(losses["loss"], theirs["loss"])


def test_the_teacher_of_paddledet_leaves_eval_mode_and_ours_does_not(shapes):
    loaded = _load(shapes, "yolov3_tiny", "yolov3_yolov3")
    model = _ours(loaded, training_batch(loaded))
    upstream = _theirs(distill_model.DistillModel, loaded, model)
    norms = [
        [layer.training for layer in teacher.sublayers() if isinstance(layer, nn.BatchNorm2D)]
        for teacher in (upstream.teacher_model, model.teachers["teacher"])
    ]
    assert norms[0] and all(norms[0]) and not any(norms[1])


def as_ld_student(config):
    """What to change in a GFL config for the head of PaddleDetection's localisation distillation."""
    ld = {"name": "KnowledgeDistillationKLDivLoss", "loss_weight": 0.25, "T": 10}
    losses = {"loss_ld": ld, "loss_ld_vlr": ld, "loss_kd": ld | {"loss_weight": 10, "T": 2}}
    return {"GFL": {**config["GFL"], "head": "LDGFLHead"}, "LDGFLHead": {**config["GFLHead"], **losses}}


def gfl_batch(classes, boxes, size=64):
    """A batch as PaddleDetection's reader for LD makes it, of one box an image (where two centres of anchors are
    equally far away it takes any; boxes at places drawn at random have no such)."""
    from ppdet.data.transform.batch_operators import Gt2GFLTarget

    reader = Gt2GFLTarget(classes, [8, 16, 32, 64], grid_cell_scale=8, compute_vlr_region=True)
    samples = [{"image": np.zeros((3, size, size)), "gt_bbox": box, "gt_class": np.ones((1, 1))} for box in boxes]
    samples = reader(samples)
    batch = {key: paddle.to_tensor(np.stack([sample[key] for sample in samples])) for key in samples[0]}
    shape = paddle.full([len(boxes), 2], float(size))
    kept = {BOXES: paddle.to_tensor(boxes), VALID: paddle.ones([len(boxes), 1])}
    return batch | kept | {"image": paddle.rand([len(boxes), 3, size, size]), "im_shape": shape, "epoch_id": 0}


def random_boxes(count, size=64):
    corner, extent = np.random.uniform(0, size / 2, (count, 1, 2)), np.random.uniform(6, size / 2, (count, 1, 2))
    return np.concatenate([corner, corner + extent], axis=2).astype("float32")


@pytest.mark.parametrize("numerics", ["paddledet", "authors"])
def test_ld_step(shapes, numerics):
    """There the sum over the batch and a weight for 80 classes, here not, unless the numerics are PaddleDetection's."""
    loaded = _load(shapes, "gfl_tiny", "gfl_ld", f"distill.numerics={numerics}")
    batch = gfl_batch(loaded.student["num_classes"], random_boxes(2))
    model = _ours(loaded, batch)
    upstream = _theirs(distill_model.LDDistillModel, loaded, model, None, as_ld_student)
    _norms_in_eval_mode(upstream.teacher_model)
    losses, theirs = model(dict(batch)), upstream(dict(batch))
    authors = {"main": 2, "vlr": 2, "kd": 80 / loaded.student["num_classes"]}
    shares = authors if numerics == "authors" else dict.fromkeys(authors, 1)
    for (name, share), key in zip(shares.items(), ("loss_ld", "loss_ld_vlr", "loss_kd")):
        _close(losses[f"ld.{name}"] * share, theirs[key])
    if numerics == "paddledet":
        _close(losses["loss"], theirs["loss"])


def test_ld_targets_are_those_of_the_reader():
    """Positives by the biased standard deviation, which the authors do not take, and the region by the unbiased one."""
    batch = gfl_batch(5, random_boxes(100, size=256), size=256)
    sizes = [(256 // stride,) * 2 for stride in (8, 16, 32, 64)]
    anchors = square_anchors(sizes, (8, 16, 32, 64), 8.0, 0)
    np.testing.assert_array_equal(anchors.numpy(), batch["grid_cells"][0].numpy())
    given = anchors, [h * w for h, w in sizes], batch[BOXES], batch[VALID]
    positive = batch["labels"].numpy() < 5
    assigned, region = atss_regions(*given, biased_positives=True)
    np.testing.assert_array_equal(assigned.numpy() > 0, positive)
    np.testing.assert_allclose(region.numpy(), batch["vlr_regions"].numpy(), rtol=1e-5, atol=1e-6)
    assert ((atss_regions(*given)[0].numpy() > 0) != positive).any()
