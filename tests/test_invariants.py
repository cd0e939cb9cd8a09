"""The invariants of DESIGN.md, each for every family of detectors.

Elsewhere: 6 and 12, which belong to the losses; 10 in test_recorders.py; 4 and 5 across ranks in test_distributed.py.
"""

import copy
import os

import numpy as np
import paddle
import pytest
from paddle import nn

from ppkd.build import build_model
from ppkd.context import Context
from ppkd.detectors import Level, Tap
from ppkd.ground_truth import BOXES, VALID
from ppkd.methods import plan
from ppkd.model import DistillModel
from ppkd.recipe import load_recipe
from ppkd.terms import Term, TermSpec
from ppkd.trainer import Trainer
from ppkd.workspace import build_detector, registered_names, scope
from tests.conftest import CONFIGS, FAMILIES, training_batch
from tests.helpers_training import (
    FOUR,
    STRONG,
    count_calls,
    differing,
    everything_in,
    fail,
    families,
    first_images_with_boxes,
    fit,
    head_of,
    shown,
    train_plain_ppdet,
)  # fmt: skip

PARTS = {"fg", "bg", "attention", "relation"}
TEACHER = "teacher"


# 1. Teacher equal to student: every feature term is 0 and its gradient too.


@families
def test_1_teacher_equal_to_student_zero_terms_and_gradients(family, recipe):
    loaded = recipe(family)
    student, teacher = build_detector(loaded.student), build_detector(loaded.student)
    teacher.set_state_dict(student.state_dict())
    model = DistillModel(student, {TEACHER: teacher}, plan(loaded.method))
    for term in model.terms:
        _equal_context_blocks(term.loss)
    # A student in training normalises with the batch's statistics, its frozen teacher with the running ones: the same
    # weights then give different maps, and rightly so. Only the norm layers go to eval here; the detector itself
    # stays in train mode, so that the step is the one that training takes.
    for layer in student.sublayers():
        if isinstance(layer, nn.layer.norm._BatchNormBase):
            layer.eval()
    losses = model(training_batch(loaded))
    terms = {key: value for key, value in losses.items() if key.startswith("fgd.")}
    strides = (8, 16, 32, 64, 128) if family == "retinanet" else (8, 16, 32)
    assert set(terms) == {f"fgd.s{stride}.{part}" for stride in strides for part in PARTS}
    assert {key: float(value) for key, value in terms.items()} == dict.fromkeys(terms, 0.0)
    sum(terms.values()).backward()
    gradients = {n: p.grad.numpy() for n, p in student.named_parameters() if p.grad is not None}
    assert any(name.startswith("neck") for name in gradients), "the terms are not connected to the student"
    assert [name for name, gradient in gradients.items() if gradient.any()] == []


def _equal_context_blocks(loss):
    # The loss has a context block of its own for either side, and both start at zero: made equal and not zero here.
    for ours, theirs in ((loss.conv_mask_s, loss.conv_mask_t), (loss.channel_add_s, loss.channel_add_t)):
        for parameter in ours.parameters():
            parameter.set_value(paddle.rand(parameter.shape))
        theirs.set_state_dict(ours.state_dict())


# 2. All weights 0: the student's training is bit-identical to plain ppdet's.


@families
@pytest.mark.parametrize("off", ["loss_weight=0", "start_epoch=9"])
def test_2_weights_zero_is_plain_ppdet_to_the_bit(family, off, recipe):
    loaded = recipe(family, overrides=[f"distill.{off}", "distill.inherit=false", FOUR])
    with Trainer.open(loaded, max_steps=2) as trainer:
        before = {k: v.clone() for k, v in trainer.student.state_dict().items()}
        calls = count_calls(trainer.distill.teachers[TEACHER].backbone)
        trainer.run()
    assert calls == [], "the teacher was run for nothing"
    assert len(trainer.terms.parameters()) > 0
    plain, exported = train_plain_ppdet(recipe(family, distil=False, overrides=[FOUR]), steps=2)
    assert differing(before, plain), "nothing was trained"
    assert differing(trainer.student.state_dict(), plain) == []
    assert differing(paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams")), exported) == []


# 3. The teacher's parameters and buffers are bit-identical after training.


@families
def test_3_teacher_is_untouched_by_training_and_eval(family, recipe):
    loaded = recipe(family, overrides=[*STRONG, "epoch=1"])
    with Trainer.open(loaded, validate=True) as trainer:
        teacher = trainer.distill.teachers[TEACHER]
        before, calls = everything_in(teacher), count_calls(teacher.backbone)
        trainer.run()
        for switch in (trainer.model.train, trainer.model.eval, trainer.model.train):
            switch()
            assert not any(layer.training for layer in teacher.sublayers(include_self=True))
        assert trainer.student.training
        trainer.model(training_batch(loaded))["loss"].backward()
    assert len(calls) == 4, "three steps and one by hand"
    assert differing(before, everything_in(teacher)) == []
    assert all(p.grad is None and p.stop_gradient for p in teacher.parameters())


# 4. Everything learnable is in the optimizer and in the resume state; nothing of it is in the student's weights.
#    (That it is synchronised across ranks: test_distributed.py.)


@families
def test_4_terms_are_learned_and_kept_beside_the_student(family, recipe):
    loaded = recipe(family, overrides=[*STRONG, "epoch=1"])
    # It moves whatever has a gradient, however small that is.
    loaded.student["OptimizerBuilder"]["optimizer"] = {"type": "Adam"}
    with Trainer.open(loaded) as trainer:
        before = {name: p.numpy().copy() for name, p in trainer.terms.named_parameters()}
        trainer.run()
    learned = dict(trainer.terms.named_parameters())
    assert {name.split(".")[1] for name in learned} == {"connect_student", "loss"}
    in_optimizer = {id(p) for p in trainer.optimizer._parameter_list}
    assert [name for name, p in learned.items() if id(p) not in in_optimizer] == []
    assert all(np.isfinite(p.numpy()).all() for p in learned.values())
    still = {name for name, p in learned.items() if np.array_equal(before[name], p.numpy())}
    # A softmax does not see a constant added to all its logits, nor anything at all where the map is a single cell
    # (strides 64 and 128 here): these have no gradient but rounding.
    single = tuple(f"{i}." for i, term in enumerate(trainer.terms) if term.label in ("fgd.s64", "fgd.s128"))
    assert [n for n in still if ".conv_mask_" not in n or not (n.endswith(".bias") or n.startswith(single))] == []

    state = paddle.load(os.path.join(loaded.output_dir, "model_final.resume"))
    assert differing(state["terms"], trainer.terms.state_dict()) == []
    moments = [key for p in learned.values() for key in state["optimizer"] if key.startswith(p.name + "_moment1")]
    assert len(moments) == len(learned)

    exported = paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams"))
    assert set(exported) == set(build_detector(recipe(family, distil=False).student).state_dict())
    teachers = {id(p) for p in trainer.distill.teachers[TEACHER].parameters()}
    assert not teachers & (in_optimizer | {id(p) for p in trainer.model.parameters()})


# 5. A batch, or one image of it, without any box gives a finite, connected loss.


@families
@pytest.mark.parametrize("with_boxes", [0, 1])
def test_5_without_boxes_terms_are_finite_and_connected(family, with_boxes, recipe, shapes, tmp_path, monkeypatch):
    loaded = recipe(family, overrides=first_images_with_boxes(shapes, tmp_path / "few", with_boxes))
    batch, model = training_batch(loaded), build_model(loaded)
    assert [bool(boxes.numpy().any()) for boxes in batch["gt_bbox"]] == [with_boxes > 0, False]
    # ppdet's own loss cannot always be had from such a batch; see the next test.
    monkeypatch.setattr(head_of(model), "get_loss", lambda *_: {"loss": paddle.zeros([])}, raising=False)
    terms = {key: value for key, value in model(batch).items() if key.startswith("fgd.")}
    assert {key.rsplit(".")[-1] for key in terms} == PARTS
    assert [key for key, value in terms.items() if not np.isfinite(float(value))] == []
    for part in PARTS:
        value = sum(value for key, value in terms.items() if key.endswith(part))
        assert (float(value) == 0) == (part == "fg" and not with_boxes), part
        value.backward(retain_graph=True)
        gradients = [p.grad.numpy() for p in model.student.backbone.parameters() if p.grad is not None]
        assert gradients and all(np.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients) == (float(value) != 0)
        model.clear_gradients()


@families
@pytest.mark.parametrize("with_boxes", [0, 1])
def test_5_without_boxes_a_whole_step_is_finite(family, with_boxes, recipe, shapes, tmp_path):
    loaded = recipe(family, overrides=first_images_with_boxes(shapes, tmp_path / "few", with_boxes))
    model = build_model(loaded)
    losses = model(training_batch(loaded))
    losses["loss"].backward()
    assert [key for key, value in losses.items() if not np.isfinite(float(value))] == []
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters() if p.grad is not None)


# 7. Resumed equals uninterrupted, to the bit on CPU.


@families
def test_7_resumed_equals_uninterrupted(family, recipe, tmp_path):
    def run(name, *overrides, **options):
        loaded = recipe(family, overrides=[*STRONG, f"save_dir={tmp_path / name}", *overrides])
        return fit(loaded, **options), os.path.join(loaded.output_dir, "model_final")

    # No snapshot half way: neither saving nor evaluating may leave a trace.
    whole, whole_path = run("whole", "snapshot_epoch=2")
    first, first_path = run("first", "epoch=1", validate=True)
    nn.Linear(2, 2)  # the optimizer's state must find its parameters by more than luck with global name counters
    second, second_path = run("second", resume=first_path)
    assert (whole.step, first.step, second.step) == (6, 3, 6)
    assert differing(paddle.load(first_path + ".pdparams"), paddle.load(whole_path + ".pdparams"))
    assert differing(paddle.load(second_path + ".pdparams"), paddle.load(whole_path + ".pdparams")) == []
    states = [paddle.load(path + ".resume") for path in (second_path, whole_path)]
    assert {"student", "terms", "optimizer", "ema", "epoch", "step"} <= set(states[0])
    assert (states[0]["ema"] is not None) == (family == "ppyoloe")
    for state in states:
        # The best score so far and how many snapshots there were: only one of them had any half way.
        del state["best"]
        (state["ema"] or {}).pop("epoch", None)
    assert differing(*states) == []


# 8. The exported student loads strictly into plain ppdet and gives equal outputs.


@families
def test_8_exported_student_is_a_plain_ppdet_model(family, recipe):
    from ppdet.core import workspace

    head = "RetinaHead" if family == "retinanet" else "PPYOLOEHead"
    # All detections are kept: an untrained detector is sure of nothing.
    all_of_them = f"{head}.nms.score_threshold=0.0"
    loaded = recipe(family, overrides=[*STRONG, "use_ema=false", all_of_them])
    trainer = fit(loaded, max_steps=2)
    weights = paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams"))
    paddle.seed(1)
    with scope(recipe(family, distil=False, overrides=[all_of_them]).student):
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


@pytest.mark.parametrize("family", FAMILIES)
def test_9_teachers_files_do_not_reach_the_student(family, recipe, shapes, tmp_path):
    plain, distilled = recipe(family, distil=False), recipe(family)
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
    slim.write_text(f"_BASE_: [{teacher}]\nslim: Distill\nslim_method: FGD\ndistill_loss: FGDFeatureLoss\n")
    given = [f"dataset_dir={shapes}", f"save_dir={tmp_path}"]
    other = load_recipe(str(CONFIGS / f"{family}_tiny.yml"), str(slim), given)
    assert other.student == plain.student and other.output_dir == plain.output_dir
    (note,) = other.notes
    assert "epoch" in note and "TrainReader" in note and "distill.upstream_merge=true" in note
    assert other.teachers[TEACHER].config["num_classes"] == plain.student["num_classes"]
    assert other.teachers[TEACHER].weights == "other.pdparams"


@families
def test_9_ppdets_global_config_is_as_before(family, recipe, monkeypatch):
    from ppdet.core.workspace import global_config

    registered_names()  # importing ppdet is what fills the table
    assert len(global_config) > 100
    before, rows = shown(global_config), {key: id(value) for key, value in global_config.items()}
    loaded = recipe(family, overrides=[FOUR])
    given = copy.deepcopy(loaded.student)
    fit(loaded, max_steps=1, validate=True)
    assert shown(global_config) == before
    assert loaded.student == given

    with Trainer.open(recipe(family, overrides=[FOUR]), max_steps=1) as trainer:
        monkeypatch.setattr(trainer, "_train_step", fail)
        with pytest.raises(ZeroDivisionError):
            trainer.run()
    assert shown(global_config) == before
    with pytest.raises(ZeroDivisionError):
        monkeypatch.setattr("ppkd.trainer.build_model", fail)
        Trainer.open(recipe(family)).__enter__()
    assert shown(global_config) == before
    assert {key: id(value) for key, value in global_config.items()} == rows, "an entry was replaced"


# 11. Mixed precision agrees with float32 within 1e-3: losses compute in float32 whatever comes in.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("connectors", [("none", "none"), ("standardise", "standardise")])
def test_11_half_precision_features_agree_with_float32(dtype, connectors):
    spec = TermSpec("t", "neck", "neck", {"name": "fgd"}, *connectors)
    level = Level("neck[0]", Tap("neck"), channels=8, stride=8)
    term = Term(spec, [((level,), (level,))])
    batch = {"image": paddle.zeros([2, 3, 64, 64]), "im_shape": paddle.full([2, 2], 64.0)}
    batch[BOXES] = paddle.to_tensor([[[4.0, 4.0, 40.0, 30.0]], [[0.0] * 4]])
    batch[VALID] = paddle.to_tensor([[1.0], [0.0]])
    # Rounded first: what is compared is the arithmetic, not how exactly a half can hold its input.
    student, teacher = ((paddle.randn([2, 8, 8, 8]) * 5).astype(dtype) for _ in range(2))
    results = []
    for kind in ("float32", dtype):
        inputs = student.astype(kind)
        inputs.stop_gradient = False
        values = term([[inputs]], [[teacher.astype(kind)]], Context(batch))
        sum(values.values()).backward()
        assert {value.dtype for value in values.values()} == {paddle.float32}
        results.append(({k: float(v) for k, v in values.items()}, inputs.grad.astype("float32").numpy()))
    (exact, exact_gradient), (half, half_gradient) = results
    assert half == pytest.approx(exact, rel=1e-3)
    np.testing.assert_allclose(half_gradient, exact_gradient, rtol=1e-2, atol=1e-3 * np.abs(exact_gradient).max())
