"""What to compute from the golden fixtures of each folder; see :mod:`tests.golden.check.report`.

A runner takes a :class:`~tests.golden.check.report.Case` and yields ``(kind, name, ours, reference,
tolerance)``.
"""

import functools

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppkd.losses.atss import atss_regions
from ppkd.losses.cwd import CWDLoss
from ppkd.losses.dist import DISTLoss, dist_parts
from ppkd.losses.dkd import DKDLoss, dkd_parts
from ppkd.losses.fgd import FGDLoss, attention_maps
from ppkd.losses.kl import KLLoss, log_softmax
from ppkd.losses.l2 import L2Loss
from ppkd.losses.ld import ld_parts, ld_rows
from ppkd.losses.masks import box_masks
from ppkd.losses.mgd import MGDLoss, mgd_generate
from ppkd.losses.normalise import batch_standardise, pkd_standardise
from ppkd.losses.pkd import PKDLoss
from ppkd.losses.score_l2 import ScoreL2Loss
from tests.golden.check.channel_matching import mgd_matching
from tests.golden.check.mmdet import mmdet
from tests.golden.check.reppoints import reppoints
from tests.golden.check.rtmdet import rtmdet
from tests.golden.check.solo import solo

# Largest relative errors allowed; of float32 against the float64 run of the reference.
VALUE = 1e-5
GRADIENT = 1e-5
PARAMETER_GRADIENT = 1e-4


def _student(array):
    return paddle.to_tensor(array, stop_gradient=False)


def _load(layer, case, name_of=lambda own: own):
    """Set the parameters of ``layer`` to the fixture's, called ``name_of(own name)`` there."""
    for own, parameter in layer.named_parameters():
        parameter.set_value(_as_ours(case[f"param_{name_of(own)}"], parameter).reshape(parameter.shape))


def _as_ours(array, parameter):
    """Of a 1x1 convolution (out, in, 1, 1) that is a matrix (in, out) here, the latter."""
    return array.squeeze((2, 3)).T if array.ndim == 4 and parameter.ndim == 2 else array


def _parameter_gradients(layer, case, name_of=lambda own: own):
    for own, parameter in layer.named_parameters():
        name = name_of(own)
        reference = _as_ours(case[f"grad_param_{name}"], parameter)
        ours = None if parameter.grad is None else parameter.grad.numpy().reshape(reference.shape)
        yield "gradient", name, ours, reference, PARAMETER_GRADIENT


def _align(case):
    """The 1x1 convolution before the loss, where the fixture has one."""
    if "param_align.weight" not in case:
        return nn.Identity()
    weight = case["param_align.weight"]
    align = nn.Conv2D(weight.shape[1], weight.shape[0], 1)
    _load(align, case, "align.{}".format)
    return align


def _gt_boxes(case):
    """Zero-padded boxes (N, M, 4) and which of them are valid (N, M)."""
    per_image = case.numbered("in_gt_boxes_")
    boxes = np.zeros((len(per_image), max(map(len, per_image)), 4), np.float32)
    valid = np.zeros(boxes.shape[:2], np.float32)
    for image, rows in enumerate(per_image):
        boxes[image, : len(rows)] = rows
        valid[image, : len(rows)] = 1
    return paddle.to_tensor(boxes), paddle.to_tensor(valid)


def fgd(case):
    hyper = case.hyper
    weights = {"fg": hyper["alpha"], "bg": hyper["beta"], "attention": hyper["gamma"]}
    weights["relation"] = hyper["lambda"]
    loss = FGDLoss(
        hyper["teacher_channels"],
        hyper["temp"],
        hyper["alpha"],
        hyper["beta"],
        hyper["gamma"],
        hyper["lambda"],
    )

    def name_of(own):
        return own.replace("channel_add", "channel_add_conv")

    _load(loss, case, name_of)
    align = _align(case)
    student, teacher = _student(case["in_student"]), paddle.to_tensor(case["in_teacher"])
    boxes, valid = _gt_boxes(case)
    image_size = paddle.to_tensor(case["in_img_shape"])
    aligned = align(student)
    terms = loss(aligned, teacher, boxes, valid, image_size, None)
    total = sum(terms.values())
    total.backward()

    yield "value", "loss", total, case["out_loss"], VALUE
    for name, weight in weights.items():
        yield "term", name, terms[name], weight * case[f"out_terms_{name}"], VALUE
    size = teacher.shape[2:]
    masks = box_masks(boxes, valid, image_size, size)
    yield "extra", "mask_fg", masks[0], case["extra_mask_fg"], VALUE
    yield "extra", "mask_bg", masks[1], case["extra_mask_bg"], VALUE
    for side, feature in (("student", aligned.detach()), ("teacher", teacher)):
        spatial, channel = attention_maps(feature.flatten(2), hyper["temp"])
        for name, ours in (("spatial", spatial.reshape([-1, *size])), ("channel", channel)):
            name = f"{name}_attention_{side}"
            yield "extra", name, ours, case[f"extra_{name}"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT
    yield from _parameter_gradients(loss, case, name_of)
    yield from _parameter_gradients(align, case, "align.{}".format)


def _pair(case, loss):
    """The student's and the teacher's tensor, and ``loss`` of them with its gradient."""
    student, teacher = _student(case["in_student"]), paddle.to_tensor(case["in_teacher"])
    value = loss(student, teacher)
    total = sum(value.values()) if isinstance(value, dict) else value
    total.sum().backward()
    return student, teacher, total


def _scalar(case, loss):
    """Value and gradient of a loss without parameters, which leaves ``loss_weight`` to its term."""
    weight = case.hyper["loss_weight"]
    student, _, total = _pair(case, lambda s, t: loss(s, t) * weight)
    yield "value", "loss", total, case["out_loss"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT


def cwd_official(case):
    hyper = case.hyper
    loss = CWDLoss(hyper["temperature"], hyper["norm_type"], hyper["divergence"])
    student, _, total = _pair(case, loss)
    yield "value", "loss", total, case["out_loss"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT


def cwd_mmrazor(case):
    yield from _scalar(case, CWDLoss(case.hyper["tau"]))


def cwd_rtmdet(case):
    weight = case["param_conv_module.conv.weight"]
    align = nn.Conv2D(weight.shape[1], weight.shape[0], 1, bias_attr=False)
    _load(align, case, "conv_module.conv.{}".format)
    loss = CWDLoss(case.hyper["tau"])

    def connected(student, teacher):
        return loss(batch_standardise(align(student)), batch_standardise(teacher))

    yield from _scalar(case, connected)
    student, teacher = paddle.to_tensor(case["in_student"]), paddle.to_tensor(case["in_teacher"])
    for side, ours in (("student", align(student)), ("teacher", teacher)):
        name = f"connected_{side}"
        yield "extra", name, batch_standardise(ours), case[f"extra_{name}"], VALUE
    yield from _parameter_gradients(align, case, "conv_module.conv.{}".format)


def pkd(case):
    hyper = case.hyper
    loss = PKDLoss(unbiased=True)
    levels = range(hyper["levels"])
    students = [_student(case[f"in_student_{level}"]) for level in levels]
    teachers = [paddle.to_tensor(case[f"in_teacher_{level}"]) for level in levels]
    pairs = [_of_one_size(s, t, hyper["resize_stu"]) for s, t in zip(students, teachers, strict=True)]
    terms = [loss(*pair) * hyper["loss_weight"] for pair in pairs]
    total = sum(terms)
    total.backward()

    yield "value", "loss", total, case["out_loss"], VALUE
    for level, (student, term) in enumerate(zip(students, terms, strict=True)):
        yield "term", f"level_{level}", term, case[f"out_terms_level_{level}"], VALUE
        normalised = case[f"extra_normalised_student_{level}"]
        if normalised.shape == tuple(student.shape):
            ours = pkd_standardise(student.detach(), unbiased=True)
            yield "extra", f"normalised_student_{level}", ours, normalised, VALUE
        # The gradient of a dead channel is huge: under one maximum it would hide all the others.
        dead = np.isin(np.arange(student.shape[1]), hyper["dead_student_channels"])
        reference, ours = case[f"grad_student_{level}"], student.grad.numpy()
        name = f"student_{level}"
        yield "gradient", name, ours[:, ~dead], reference[:, ~dead], GRADIENT
        if dead.any():
            yield "gradient", f"{name} (dead)", ours[:, dead], reference[:, dead], GRADIENT


def score_l2(case):
    hyper = case.hyper
    loss = ScoreL2Loss(hyper["teacher_channels"], hyper["student_channels"])
    _load(loss, case)
    logits = paddle.to_tensor(case["in_logits"])
    student, _, total = _pair(case, lambda s, t: loss((s, None), (t, logits)) * hyper["loss_weight"])

    yield "value", "loss", total, case["out_loss"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT
    yield from _parameter_gradients(loss, case)


def _of_one_size(student, teacher, resize_student):
    """What the reference does within its loss, and a connector here."""
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    larger = functools.partial(F.interpolate, mode="bilinear", align_corners=False)
    if resize_student:
        return larger(student, size=teacher.shape[2:]), teacher
    return student, larger(teacher, size=student.shape[2:])


def mgd_masked(case):
    hyper = case.hyper
    loss = MGDLoss(hyper["teacher_channels"], hyper["alpha"], hyper["lambda"], hyper["mask"])
    _load(loss, case)
    align = _align(case)
    keep = paddle.to_tensor(case["mask_keep"])
    student, _, total = _pair(case, lambda s, t: loss(align(s), t, mask_keep=keep))

    yield "value", "loss", total, case["out_loss"], VALUE
    yield "term", "mse_over_n", total / hyper["alpha"], case["out_terms_mse_over_n"], VALUE
    generated = mgd_generate(align(student.detach()), keep, loss.generation)
    yield "extra", "generated", generated.detach(), case["extra_generated"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT
    yield from _parameter_gradients(loss, case)
    yield from _parameter_gradients(align, case, "align.{}".format)


def kl(case):
    tau, reduction = case.hyper["tau"], case.hyper["reduction"]
    if reduction != "none":
        yield from _scalar(case, KLLoss(tau, reduction))
        return
    # A term is one number, so there is no such loss: its elements, and the loss that is their sum.
    weight = case.hyper["loss_weight"]
    student, teacher, total = _pair(case, lambda s, t: KLLoss(tau, "sum")(s, t) * weight)
    logs = [log_softmax(x.detach() / tau, axis=1) for x in (student, teacher)]
    elements = logs[1].exp() * (logs[1] - logs[0]) * (tau**2 * weight)
    yield "value", "elements", elements, case["out_loss"], VALUE
    yield "value", "loss", total, np.asarray(case["out_loss"], "float64").sum(), VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT


def l2(case):
    options = ("normalize", "mult", "div_element", "dist")
    yield from _scalar(case, L2Loss(**{option: case.hyper[option] for option in options}))


def dkd(case):
    hyper = case.hyper
    # In the reference a legacy argument turns `mean` into a sum.
    reduction = "batchmean" if hyper["reduction"] == "batchmean" else "sum"
    labels = paddle.to_tensor(case["in_labels"])
    loss = DKDLoss(hyper["tau"], hyper["alpha"], hyper["beta"], reduction)
    weight = hyper["loss_weight"]
    student, teacher, total = _pair(case, lambda s, t: sum(loss(s, t, labels).values()) * weight)

    yield "value", "loss", total, case["out_loss"], VALUE
    terms = dkd_parts(student.detach(), teacher, labels, hyper["tau"], reduction)
    for name, term in terms.items():
        yield "term", name, term, case[f"out_terms_{name}"], VALUE
    yield "gradient", "student", student.grad, case["grad_student"], GRADIENT


def dist(case):
    hyper = case.hyper
    loss = DISTLoss(hyper["tau"], hyper["inter_loss_weight"], hyper["intra_loss_weight"])
    yield from _scalar(case, lambda s, t: sum(loss(s, t).values()))
    pair = paddle.to_tensor(case["in_student"]), paddle.to_tensor(case["in_teacher"])
    for name, term in dist_parts(*pair, hyper["tau"]).items():
        yield "term", name, term, case[f"out_terms_{name}"], VALUE


def ld_kd(case):
    hyper = case.hyper
    weight = paddle.to_tensor(case["in_weight"]) if "in_weight" in case else 1.0
    reduction, divisor = hyper["reduction"], hyper.get("avg_factor")

    def loss(student, teacher):
        rows = ld_rows(student, teacher, hyper["T"]) * weight
        if reduction == "mean":
            return rows.mean() if divisor is None else rows.sum() / divisor
        return rows.sum() if reduction == "sum" else rows

    yield from _scalar(case, loss)


def ld_vlr(case):
    boxes = paddle.to_tensor(case["in_gt_boxes"]).unsqueeze(0)
    assigned, region = atss_regions(
        paddle.to_tensor(case["in_anchors"]),
        case["in_num_level_anchors"].tolist(),
        boxes,
        paddle.ones(boxes.shape[:2]),
        case.hyper["topk"],
    )
    yield "value", "vlr_region", region[0], case["out_vlr_region"], VALUE
    yield "extra", "assigned_gt", assigned[0], case["out_assigned_gt"], 0.0


def ld_head(case):
    hyper = case.hyper
    weights = {"ld": hyper["ld_weight"], "ld_vlr": hyper["vlr_weight"], "kd": hyper["kd_weight"]}
    sides = [
        {
            f"{kind}_{level}": make(case[f"in_{side}_{kind}_{level}"])
            for level in range(len(hyper["strides"]))
            for kind in ("cls", "box")
        }
        for side, make in (("student", _student), ("teacher", paddle.to_tensor))
    ]
    student = sides[0]
    levels = []
    for level in range(len(hyper["strides"])):
        pairs = [(side[f"cls_{level}"], side[f"box_{level}"]) for side in sides]
        labels = case[f"extra_labels_{level}"]
        terms = ld_parts(
            *pairs,
            paddle.to_tensor((labels >= 0) & (labels < hyper["num_classes"])),
            paddle.to_tensor(case[f"extra_label_weights_{level}"]),
            paddle.to_tensor(case[f"extra_vlr_region_{level}"]),
            hyper["ld_T"],
            hyper["vlr_T"],
            hyper["kd_T"],
            batch_average=False,
        )
        levels.append({name: terms[name] * weight for name, weight in weights.items()})
    total = sum(sum(terms.values()) for terms in levels)
    total.backward()

    yield "value", "loss", total, case["out_loss"], VALUE
    for level, terms in enumerate(levels):
        for name, term in terms.items():
            name = f"{name}_{level}"
            yield "term", name, term, case[f"out_terms_{name}"], VALUE
    for name, tensor in student.items():
        yield "gradient", f"student_{name}", tensor.grad, case[f"grad_student_{name}"], GRADIENT
    yield from _ld_regions(case)


def _ld_regions(case):
    """Our own anchor selection on the boxes of an ``ld_head`` case, against its stored targets."""
    anchors = [anchors[0] for anchors in case.numbered("extra_anchors_")]
    assigned, region = atss_regions(
        paddle.to_tensor(np.concatenate(anchors)),
        [len(rows) for rows in anchors],
        *_gt_boxes(case),
        case.hyper["topk"],
    )
    labels = np.concatenate(case.numbered("extra_labels_"), axis=1)
    positive = (assigned > 0).astype("float32")
    yield "extra", "positive", positive, labels < case.hyper["num_classes"], 0.0
    reference = np.concatenate(case.numbered("extra_vlr_region_"), axis=1)
    yield "extra", "vlr_region", region, reference, VALUE


RUNNERS = {
    runner.__name__: runner
    for runner in (
        cwd_mmrazor,
        cwd_official,
        cwd_rtmdet,
        dist,
        dkd,
        fgd,
        kl,
        l2,
        ld_head,
        ld_kd,
        ld_vlr,
        mgd_masked,
        mgd_matching,
        mmdet,
        pkd,
        reppoints,
        rtmdet,
        score_l2,
        solo,
    )
}
