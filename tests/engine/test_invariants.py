"""The invariants of DESIGN.md, each for pairs of a detector and a method that cover all of both.

Elsewhere: 12, and the mathematics of 6, in tests/losses; 10 in test_recorders.py; 4 and 5 across ranks in
test_distributed.py.
"""

import copy
import os

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.bridge.workspace import build_detector, registered_names, scope
from ppkd.build import build_model
from ppkd.detectors.recorders import Recorder
from ppkd.engine import balance
from ppkd.engine.connector_layers import check_connectors
from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.model import DistillModel
from ppkd.losses import LOSSES
from ppkd.methods import plan
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer
from tests.conftest import CONFIGS, enliven, training_batch
from tests.helpers_training import (
    FOUR,
    PAIRS,
    RUN_PAIRS,
    count_calls,
    differing,
    everything_in,
    fail,
    first_images_with_boxes,
    fit,
    pairs,
    run_pairs,
    settle,
    shown,
    strong,
    terms_of,
    train_plain_ppdet,
)  # fmt: skip

TEACHER = "teacher"
# Where the five-level neck of RetinaNet and the four-level one of GFL have a single cell in these small images.
SINGLE_CELL = ("s64", "s128")
STRIDES = {
    "retinanet": (8, 16, 32, 64, 128), "gfl": (8, 16, 32, 64), "picodet": (8, 16, 32), "ppyoloe": (8, 16, 32),
    "yolov3": (8, 16, 32), "rtmdet": (8, 16, 32), "resnet": (4, 8),
}  # fmt: skip
FGD = ("fg", "bg", "attention", "relation")
# What is logged: term -> parts (none: the term itself); terms in ALL_LEVELS are one for all strides.
TERMS = {
    "fgd": {"fgd": FGD},
    "cwd": {"cwd_neck": ()},
    "ld": {"ld": ("main", "vlr", "kd")},
    "ppyoloe": {"logits": ("class", "iou", "dfl", "kd"), "feat": FGD},
    "yolov3": {"yolov3": ("x", "y", "w", "h", "cls", "obj")},
    "heads": {
        "kl": (), "dist": ("inter", "intra"), "dkd": ("tckd", "nckd"), "bckd": ("cls", "iou"), "bckd_cls": (),
        "cross_cls": (), "cross_box": (), "cross_giou": (),
    },
    "maps": dict.fromkeys(
        ("absolute", "squared", "normalised", "pattern", "always", "smaller", "projected", "generated", "masked",
         "scored", "angle"), ()
    ),
    "neck": {"neck": (), "plain": ()},
    "matching": dict.fromkeys(("matching", "bare", "largest", "single", "dropped", "lone"), ()),
}  # fmt: skip
ALL_LEVELS = ("ld", "logits", "dkd", "bckd", "bckd_cls", "cross_cls", "cross_box", "cross_giou")
ONE_LEVEL = {"smaller": 8, "lone": 4}
# Terms that an invariant is not about. 1: what a convolution or norm of its own makes of equal maps is not equal.
# 6: masks and members are drawn, PaddleDetection divides by n - 1, and a magnitude remembers the first of
# the two batches. 11: the CPU has no convolution of halves, and where an untrained neck gives 1e-4 everywhere, the
# gradient of dividing by a deviation is beyond a half.
_CONVOLVED = ("always", "smaller", "projected", "generated", "masked", "scored", "angle")
OFF = {
    (1, "maps"): _CONVOLVED, (6, "maps"): ("generated", "masked", "normalised", "projected"),
    (11, "maps"): (*_CONVOLVED, "normalised"),
    (1, "neck"): ("neck",), (11, "neck"): ("neck",),
    (1, "matching"): ("matching", "dropped"), (6, "matching"): ("dropped",),
    (11, "heads"): ("cross_cls", "cross_box", "cross_giou"),
}  # fmt: skip
# Parts that compare with a soft target and do not subtract its entropy: no zero at equality, but no gradient either.
CROSS_ENTROPIES = ("logits.dfl", ".x", ".y", ".cls", ".obj")
# Its target is whether the teacher's logit is positive, which no finite logit reaches: it has a gradient everywhere.
HARD_TARGET = ".obj"
# Parts that are zero in a batch without boxes.
OF_BOXES = (".fg", "ld.main", "ld.vlr", "ld.kd", "logits.iou", "logits.dfl", "logits.kd", ".tckd", ".nckd")
# Parts that are 0 but for rounding where both sides are equal: IoUs and correlations.
FEW_SAMPLES = ("dist.s64.intra",)  # two cells have next to nothing to correlate
ROUNDED = (".iou", "cross_giou", ".inter", ".intra")


def without(invariant, method):
    """Overrides that turn off the terms that an invariant is not about."""
    return [f"distill.terms.{name}.weight=0" for name in OFF.get((invariant, method), ())]


def expected_terms(family, method, invariant=None):
    """The names of all terms that a pair logs."""
    names = set()
    terms = {**TERMS[method], **({"cwd_cls": ()} if (family, method) == ("gfl", "cwd") else {})}
    for term, parts in terms.items():
        if term in OFF.get((invariant, method), ()):
            continue
        strides = (ONE_LEVEL[term],) if term in ONE_LEVEL else STRIDES[family]
        labels = [term] if term in ALL_LEVELS else [f"{term}.s{stride}" for stride in strides]
        names |= {f"{label}.{part}" for label in labels for part in parts} or set(labels)
    return names


def twins(loaded):
    """A student with its norm layers at rest, and a `DistillModel` of it beside a teacher of the same weights."""
    student = enliven(build_detector(loaded.student))
    teacher = build_detector(loaded.student)
    teacher.set_state_dict(student.state_dict())
    model = DistillModel(student, {TEACHER: teacher}, plan(loaded.method))
    settle(student)
    return student, model


def enliven_teacher(model):
    """Add noise to a teacher: to neck and head and, where it is a ResNet, to its batch norms."""
    parts = [model.neck, model.head if hasattr(model, "head") else model.yolo_head]
    if type(model.backbone).__name__ == "ResNet":
        parts += [layer for layer in model.backbone.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    enliven(model, *parts)


def values_and_gradients(model, batch):
    """Name of a term -> (its value, the largest absolute gradient of the student's parameters, how many have one)."""
    result = {}
    terms = terms_of(model(dict(batch)), model)
    for name, value in terms.items():
        # Not backward() with retain_graph: Paddle ends with a segmentation fault when that meets a PyLayer twice.
        found = balance.gradient(value, balance.trained_parameters(model.student))
        gradients = [x.numpy() for x in found if x is not None]
        assert all(np.isfinite(gradient).all() for gradient in gradients), name
        assert gradients, f"{name} is not connected to the student"
        result[name] = float(value), max(float(np.abs(gradient).max()) for gradient in gradients)
    return result


def test_every_loss_and_every_connector_is_in_one_of_the_pairs(recipe):
    losses, connectors = set(), set()
    for family, method in PAIRS:
        for spec in plan(recipe(family, method).method).terms:
            losses.add(spec.loss["name"])
            for given in (spec.student_connector, spec.teacher_connector):
                connectors |= {link["name"] for link in check_connectors(given, "x")}
    # Sets of predictions are for detectors of another kind: tests/detectors/test_detr.py.
    assert (losses | {"detr_match", "shared_queries", "found_boxes"}, connectors) == (set(LOSSES), set(CONNECTORS))


# 1. Teacher equal to student: every feature term is 0 and its gradient too.


@pairs
def test_1_teacher_equal_to_student_zero_terms_and_gradients(family, method, recipe):
    student, model = twins(loaded := recipe(family, method, overrides=without(1, method)))
    for term in model.terms:
        _equal_context_blocks(term.loss)
    batch = training_batch(loaded)
    equal = values_and_gradients(model, batch)
    assert set(equal) == expected_terms(family, method, 1)
    enliven_teacher(model.teachers[TEACHER])
    usual = values_and_gradients(model, batch)
    for name, (value, gradient) in equal.items():
        if name in FEW_SAMPLES:
            continue
        if not name.endswith(CROSS_ENTROPIES):
            assert abs(value) <= (1e-3 * usual[name][0] if name.endswith(ROUNDED) else 0.0), name
        if not name.endswith(HARD_TARGET):
            assert gradient <= (1e-3 if name.endswith(ROUNDED) else 1e-5) * usual[name][1], name
    # At a level of few cells there may be no background, or only a single cell: not so at all of them.
    for part in _parts(usual):
        seen = [min(usual[name]) for name in usual if name.endswith(part)]
        assert max(seen) > 0, f"{part} does not see a difference either"


def _equal_context_blocks(loss):
    # FGD's loss has a context block of its own for either side, and both start at zero: made equal and not zero here.
    if not hasattr(loss, "conv_mask_s"):
        return
    for ours, theirs in ((loss.conv_mask_s, loss.conv_mask_t), (loss.channel_add_s, loss.channel_add_t)):
        for parameter in ours.parameters():
            parameter.set_value(paddle.rand(parameter.shape))
        theirs.set_state_dict(ours.state_dict())


# 2. All weights 0: the student's training is bit-identical to plain ppdet's.

NO_WEIGHT = {
    "fgd": ["distill.loss_weight=0"],
    "cwd": ["distill.weight=0"],
    "ld": ["distill.loss_weight=0"],
    "ppyoloe": ["distill.loss_weight.logits=0", "distill.loss_weight.feat=0"],
    "yolov3": ["distill.weight=0"],
    **{m: [f"distill.terms.{name}.weight=0" for name in TERMS[m]] for m in ("heads", "maps", "neck", "matching")},
}


# What turns a line off in an epoch does not depend on its loss: a pair with a `Distill` key alpha, one with terms of
# all levels, one with parameters of its own.
_EPOCHS = (("ppyoloe", "ppyoloe"), ("gfl", "ld"), ("rtmdet", "neck"))
OFFS = [(*pair, "weight") for pair in RUN_PAIRS] + [(*pair, "epoch") for pair in _EPOCHS]


@pytest.fixture(scope="module")
def plain_runs():
    """Family -> what `train_plain_ppdet` gave, once trained."""
    return {}


@pytest.mark.parametrize("family, method, off", OFFS)
def test_2_weights_zero_is_plain_ppdet_to_the_bit(family, method, off, recipe, plain_runs):
    given = NO_WEIGHT[method] if off == "weight" else ["distill.start_epoch=9"]
    if (method, off) == ("ppyoloe", "epoch"):
        given.append("distill.alpha=1")  # it scales the student's own loss all the time
    loaded = recipe(family, method, overrides=[*given, "distill.inherit=false", FOUR])
    with Trainer.open(loaded, max_steps=2) as trainer:
        before = {k: v.clone() for k, v in trainer.student.state_dict().items()}
        calls = count_calls(trainer.distill.teachers[TEACHER].backbone)
        trainer.run()
    assert calls == [], "the teacher was run for nothing"
    assert (len(trainer.distillation.parameters()) > 0) == bool(LEARNED[method])
    if family not in plain_runs:
        plain_runs[family] = train_plain_ppdet(recipe(family, distil=False, overrides=[FOUR]), steps=2)
    plain, exported = plain_runs[family]
    assert differing(before, plain), "nothing was trained"
    assert differing(trainer.student.state_dict(), plain) == []
    assert differing(paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams")), exported) == []


# 3. The teacher's parameters and buffers are bit-identical after training.
# 4. Everything learnable is in the optimizer and in the resume state; nothing of it is in the student's weights.
#    (That it is synchronised across ranks: test_distributed.py.)

LEARNED = {"fgd": {"connect_student", "loss"}, "cwd": {"connect_student"}, "ld": set(), "yolov3": set()}
LEARNED |= {"ppyoloe": LEARNED["fgd"], "heads": {"connect_student"}, "maps": LEARNED["fgd"]}
LEARNED["neck"] = {"connect_student"}
LEARNED["matching"] = {"connect_student"}


@run_pairs
def test_3_teacher_is_untouched_and_4_terms_are_learned_and_kept_beside_the_student(family, method, recipe):
    loaded = recipe(family, method, overrides=[*strong(method), "epoch=1"])
    # It moves whatever has a gradient, however small that is.
    loaded.student["OptimizerBuilder"]["optimizer"] = {"type": "Adam"}
    with Trainer.open(loaded, validate=True) as trainer:
        teacher = trainer.distill.teachers[TEACHER]
        before, calls = everything_in(teacher), count_calls(teacher.backbone)
        terms_before = {name: p.numpy().copy() for name, p in trainer.distillation.named_parameters()}
        trainer.run()
        # One more step, by hand below, counts on.
        terms_after = {name: tensor.clone() for name, tensor in trainer.distillation.state_dict().items()}
        for switch in (trainer.model.train, trainer.model.eval, trainer.model.train):
            switch()
            assert not any(layer.training for layer in teacher.sublayers(include_self=True))
        assert trainer.student.training
        trainer.distill.epoch = 1
        trainer.model(training_batch(loaded, epoch=1))["loss"].backward()
    assert len(calls) == 4, "three steps and one by hand"
    assert differing(before, everything_in(teacher)) == []
    assert all(p.grad is None and p.stop_gradient for p in teacher.parameters())

    # Those of batch norm that are no more than running statistics are parameters to Paddle.
    learned = {name: p for name, p in trainer.distillation.named_parameters() if p.trainable}
    assert {name.split(".")[2] for name in learned} == LEARNED[method]
    in_optimizer = {id(p) for p in trainer.optimizer._parameter_list}
    assert [name for name, p in learned.items() if id(p) not in in_optimizer] == []
    assert all(np.isfinite(p.numpy()).all() for p in learned.values())
    still = {name for name in learned if np.array_equal(terms_before[name], terms_after[name].numpy())}
    assert {name for name in still if not _sees_no_change(name, trainer.distill.terms, method)} == set()

    state = paddle.load(os.path.join(loaded.output_dir, "model_final.resume"))
    if learned:
        assert differing(state["terms"], terms_after) == []
    moments = [key for p in learned.values() for key in state["optimizer"] if key.startswith(p.name + "_moment1")]
    assert len(moments) == len(learned)

    exported = paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams"))
    assert set(exported) == set(build_detector(recipe(family, distil=False).student).state_dict())
    teachers = {id(p) for p in teacher.parameters()}
    assert not teachers & (in_optimizer | {id(p) for p in trainer.model.parameters()})


def _sees_no_change(name, terms, method):
    """Whether a parameter has no gradient but rounding.

    A softmax over positions sees nothing at all where the map is a single cell, and a softmax over classes or a norm no
    constant that is added.
    """
    constant = name.endswith(".bias") and method != "fgd" and ".connect_student." in name
    single = terms[int(name.split(".")[1])].label.endswith(SINGLE_CELL)
    return constant or (single and (".conv_mask_" in name or method == "cwd"))


# 5. A batch, or one image of it, without any box gives a finite, connected loss.


# In epoch 1 PP-YOLOE assigns its targets by what it predicts; to the others all epochs are the same.
EPOCHS = {"ppyoloe": (0, 1)}


@pairs
def test_5_without_boxes_the_loss_is_finite_and_connected(family, method, recipe, shapes, tmp_path):
    sets = [first_images_with_boxes(shapes, tmp_path / f"few{number}", number) for number in (0, 1)]
    loaded = [recipe(family, method, overrides=overrides) for overrides in sets]
    model = build_model(loaded[0])
    enliven(model.student)
    for layer in (term.loss for term in model.terms if hasattr(term.loss, "channel_add_s")):
        for parameter in layer.parameters():
            parameter.set_value(paddle.rand(parameter.shape))
    # Of what does not ask for the targets, one epoch each: that of the harder assignment where there is no box.
    everywhere = [(boxes, epoch) for boxes in (0, 1) for epoch in EPOCHS.get(family, (0,))]
    of_targets = family != "ppyoloe" or method in ("ld", "ppyoloe")
    for with_boxes, epoch in everywhere if of_targets else [(0, 1), (1, 0)]:
        _finite_and_connected(family, method, model, training_batch(loaded[with_boxes], epoch), with_boxes)


def _finite_and_connected(family, method, model, batch, with_boxes):
    assert [bool(boxes.numpy().any()) for boxes in batch["ppkd_boxes_valid"]] == [with_boxes > 0, False]
    found = values_and_gradients(model, batch)
    assert set(found) == expected_terms(family, method)
    assert [name for name, (value, _) in found.items() if not np.isfinite(value)] == []
    if not with_boxes:
        zeros = {name for name in found if name.endswith(OF_BOXES)}
        assert {name: found[name] for name in zeros} == dict.fromkeys(zeros, (0.0, 0.0))
    else:
        sums = {part: sum(v for name, (v, _) in found.items() if name.endswith(part)) for part in _parts(found)}
        assert {part for part, value in sums.items() if value <= 0} == set()
    losses = model(dict(batch))
    model.clear_gradients()
    losses["loss"].backward()
    assert [key for key, value in losses.items() if not np.isfinite(float(value))] == []
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters() if p.grad is not None)


def _parts(names):
    """Last components of names, without those of levels that never see anything."""
    names = [name for name in names if not name.endswith(SINGLE_CELL)]
    return {name[name.rindex(".") :] if "." in name else name for name in names}


# 6. A batch of two copies of an image gives the loss of one.


@pairs
def test_6_two_copies_of_an_image_give_the_terms_of_one(family, method, recipe):
    loaded = recipe(family, method, overrides=["TrainReader.batch_size=1", *without(6, method)])
    model, one = build_model(loaded), training_batch(loaded)
    settle(enliven(model.student))
    for epoch in EPOCHS.get(family, (0,)):
        batches = [{**batch, "epoch_id": epoch} for batch in (one, {key: _twice(value) for key, value in one.items()})]
        (once, twice) = (terms_of(model(batch), model) for batch in batches)
        assert set(once) == expected_terms(family, method, 6)
        once, twice = ({key: float(value) for key, value in terms.items()} for terms in (once, twice))
        assert sum(once.values()) > 0
        assert twice == pytest.approx(once, rel=1e-4, abs=1e-6)


def _twice(value):
    if isinstance(value, list):
        return value * 2
    return paddle.concat([value, value]) if isinstance(value, paddle.Tensor) else value


# 7. Resumed equals uninterrupted, to the bit on CPU.


@run_pairs
def test_7_resumed_equals_uninterrupted(family, method, recipe, tmp_path):
    # Three steps an epoch where channels are counted, which the stop is in the middle of; two everywhere else.
    steps, fewer = (3, []) if method == "matching" else (2, ["TrainReader.batch_size=6"])

    def run(name, *overrides, **options):
        given = [*strong(method), *fewer, f"save_dir={tmp_path / name}", *overrides]
        loaded = recipe(family, method, overrides=given)
        return fit(loaded, **options), os.path.join(loaded.output_dir, "model_final")

    # No snapshot half way: neither saving nor evaluating may leave a trace.
    whole, whole_path = run("whole", "snapshot_epoch=2")
    first, first_path = run("first", max_steps=steps + 1, validate=True)  # one step into the second epoch
    nn.Linear(2, 2)  # the optimizer's state must find its parameters by more than luck with global name counters
    second, second_path = run("second", resume=first_path)
    assert (whole.step, first.step, second.step) == (2 * steps, steps + 1, 2 * steps)
    assert differing(paddle.load(first_path + ".pdparams"), paddle.load(whole_path + ".pdparams"))
    assert differing(paddle.load(second_path + ".pdparams"), paddle.load(whole_path + ".pdparams")) == []
    states = [paddle.load(path + ".resume") for path in (second_path, whole_path)]
    assert {"student", "terms", "optimizer", "ema", "epoch", "step"} <= set(states[0])
    assert (states[0]["ema"] is not None) == (family == "ppyoloe")
    assert bool(states[0]["terms"]) == bool(LEARNED[method])
    for state in states:
        # The best score so far and how many snapshots there were: only one of them had any half way.
        del state["best"]
        (state["ema"] or {}).pop("epoch", None)
    assert differing(*states) == []


# 8. The exported student loads strictly into plain ppdet and gives equal outputs.

# All detections are kept: an untrained detector is sure of nothing.
ALL_OF_THEM = {
    "retinanet": ["RetinaHead.nms.score_threshold=0.0"],
    "ppyoloe": ["PPYOLOEHead.nms.score_threshold=0.0"],
    "gfl": ["GFLHead.nms.score_threshold=0.0"],
    "picodet": ["PicoHead.nms.score_threshold=0.0"],
    "rtmdet": ["RTMDetHead.nms.score_threshold=0.0"],
    "resnet": ["RetinaHead.nms.score_threshold=0.0"],
    "yolov3": ["BBoxPostProcess.nms.score_threshold=0.0", "BBoxPostProcess.decode.conf_thresh=0.0"],
}


# For what does not depend on the method: a pair of each family, the one that adds most to the student.
_MOST = (
    ("retinanet", "fgd"), ("gfl", "heads"), ("picodet", "ld"), ("ppyoloe", "maps"), ("yolov3", "yolov3"),
    ("rtmdet", "neck"), ("resnet", "matching"),
)  # fmt: skip
a_pair_of_each_family = pytest.mark.parametrize("family, method", _MOST)


@a_pair_of_each_family
def test_8_exported_student_is_a_plain_ppdet_model(family, method, recipe):
    from ppdet.core import workspace

    loaded = recipe(family, method, overrides=[*strong(method), "use_ema=false", *ALL_OF_THEM[family]])
    trainer = fit(loaded, max_steps=1)
    weights = paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams"))
    paddle.seed(1)
    with scope(recipe(family, distil=False, overrides=ALL_OF_THEM[family]).student):
        plain = workspace.create(loaded.student["architecture"])
    assert set(weights) == set(plain.state_dict())
    missing, unexpected = plain.set_state_dict(weights)
    assert (missing, unexpected) == ([], [])
    image = paddle.rand([2, 3, 64, 64])
    batch = {"image": image, "im_shape": paddle.full([2, 2], 64.0), "scale_factor": paddle.ones([2, 2])}
    outputs = []
    for model in (trainer.student, plain):
        model.eval()
        with paddle.no_grad():
            outputs.append(model(dict(batch)))
    assert outputs[0]["bbox"].shape[0] > 0
    assert differing(*outputs) == []


# 9. The student's effective config is untouched by the teacher's files.


@pytest.mark.parametrize("family, method", PAIRS)
def test_9_teachers_files_do_not_reach_the_student(family, method, recipe, shapes, tmp_path):
    plain, distilled = recipe(family, distil=False), recipe(family, method)
    assert distilled.student == plain.student and distilled.output_dir == plain.output_dir
    assert distilled.notes == []

    teacher = tmp_path / "teacher.yml"
    teacher.write_text(
        f"_BASE_: [{CONFIGS / (family + '_wide.yml')}]\n"
        "epoch: 77\nnum_classes: 80\nweights: output/other/model_final\nworker_num: 7\nuse_ema: false\n"
        "pretrain_weights: other.pdparams\nsave_dir: elsewhere\nnorm_type: sync_bn\n"
        "LearningRate: {base_lr: 9.0}\nTrainReader: {batch_size: 16, shuffle: false}\n"
    )
    slim = tmp_path / "slim.yml"
    text = (CONFIGS / f"{family}_{method}.yml").read_text()
    slim.write_text(text.replace(f"{family}_wide.yml", str(teacher)))
    given = [f"dataset_dir={shapes}", f"save_dir={tmp_path}"]
    other = load_recipe(str(CONFIGS / f"{family}_tiny.yml"), str(slim), given)
    assert other.student == plain.student and other.output_dir == plain.output_dir
    (note,) = other.notes
    assert "epoch" in note and "TrainReader" in note and "distill.upstream_merge=true" in note
    assert other.teachers[TEACHER].config["num_classes"] == plain.student["num_classes"]
    assert other.teachers[TEACHER].weights == "other.pdparams"


@a_pair_of_each_family
def test_9_ppdets_global_config_is_as_before(family, method, recipe, monkeypatch):
    from ppdet.core.workspace import global_config

    registered_names()  # importing ppdet is what fills the table
    assert len(global_config) > 100
    before, rows = shown(global_config), {key: id(value) for key, value in global_config.items()}
    loaded = recipe(family, method, overrides=[FOUR])
    given = copy.deepcopy(loaded.student)
    fit(loaded, max_steps=1, validate=True)
    assert shown(global_config) == before
    assert loaded.student == given

    with Trainer.open(recipe(family, method, overrides=[FOUR]), max_steps=1) as trainer:
        monkeypatch.setattr(trainer, "_train_batch", fail)
        with pytest.raises(ZeroDivisionError):
            trainer.run()
    assert shown(global_config) == before
    with pytest.raises(ZeroDivisionError):
        monkeypatch.setattr("ppkd.training.trainer.build_model", fail)
        Trainer.open(recipe(family, method)).__enter__()
    assert shown(global_config) == before
    assert {key: id(value) for key, value in global_config.items()} == rows, "an entry was replaced"


# 11. Mixed precision agrees with float32 within 1e-3: losses compute in float32 whatever comes in.


@pairs
def test_11_half_precision_features_agree_with_float32(family, method, recipe, monkeypatch):
    """Between twins: Paddle's CPU has no convolution of halves, which is what connects unequal channels."""
    loaded = recipe(family, method, overrides=without(11, method))
    student, model = twins(loaded)
    enliven_teacher(model.teachers[TEACHER])
    batch = training_batch(loaded)
    for dtype in ("float16", "bfloat16"):
        _agree_with_float32(student, model, batch, dtype, monkeypatch)


def _agree_with_float32(student, model, batch, dtype, monkeypatch):
    results, take = [], Recorder.take
    for kind in ("float32", dtype):
        # Rounded first: what is compared is the arithmetic, not how exactly a half can hold its input.
        monkeypatch.setattr(Recorder, "take", lambda self, tap, kind=kind: take(self, tap).astype(dtype).astype(kind))
        terms = terms_of(model(dict(batch)), model)
        assert {value.dtype for value in terms.values()} == {paddle.float32}
        # Scaled, as mixed precision does it: a gradient on its way back through a half must not vanish.
        (sum(terms.values()) * 1024).backward()
        gradients = {n: p.grad.numpy() for n, p in student.named_parameters() if p.grad is not None}
        results.append(({k: float(v) for k, v in terms.items()}, gradients))
        student.clear_gradients()
    monkeypatch.setattr(Recorder, "take", take)
    (exact, exact_gradients), (half, half_gradients) = results
    assert half == pytest.approx(exact, rel=1e-3, abs=1e-7)
    assert exact_gradients.keys() == half_gradients.keys()
    largest = max(np.abs(gradient).max() for gradient in exact_gradients.values())
    for name, gradient in exact_gradients.items():
        np.testing.assert_allclose(half_gradients[name], gradient, rtol=1e-2, atol=5e-3 * largest, err_msg=name)
