"""What to compute from the golden fixtures of RepPoints' head; see `report`."""

import numpy as np
import paddle

from tests.golden.check.heads import (
    GRADIENT,
    HEAD,
    LOSS,
    batch_of_boxes,
    fill,
    nms,
    parameter_gradients,
    same_detections,
)

_OUTPUTS, _LOSSES = ("cls", "pts_init", "pts_refine"), ("loss_cls", "loss_pts_init", "loss_pts_refine")


def build_head(hyper):
    """The head that a case's settings describe."""
    ending = nms(hyper["nms_iou"], hyper["score_thr"], hyper["max_per_img"])
    from ppkd.models.reppoints import RepPointsHead

    return RepPointsHead(
        hyper["num_classes"], hyper["in_channels"], hyper["point_strides"], hyper["feat_channels"],
        hyper["point_feat_channels"], hyper["stacked_convs"], hyper["gn_groups"] or 0, hyper["gradient_mul"],
        hyper["moment_mul"], hyper["point_base_scale"], hyper["init_scale"], hyper["init_pos_num"],
        (hyper["pos_iou_thr"], hyper["neg_iou_thr"], hyper["min_pos_iou"]),
        {"class": hyper["loss_weight_cls"], "init": hyper["loss_weight_init"], "refine": hyper["loss_weight_refine"]},
        hyper["beta"], nms=ending, nms_pre=hyper["nms_pre"],
    )  # fmt: skip


def reppoints(case):
    """A case: forward, both assignments, losses, all gradients, decoding and NMS; without maps what follows."""
    head = build_head(case.hyper)
    if "in_feat_0" not in case:
        head.moment_transfer.set_value(case["param_moment_transfer"])
        outputs = [[paddle.to_tensor(x) for x in case.numbered(f"out_{kind}_")] for kind in _OUTPUTS]
        yield from _after_forward(case, head, outputs)
        return
    fill(head, case)
    features = [paddle.to_tensor(x, stop_gradient=False) for x in case.numbered("in_feat_")]
    outputs = head(features)
    for kind, maps in zip(_OUTPUTS, outputs):
        for k, x in enumerate(maps):
            yield "value", f"{kind}_{k}", x, case[f"out_{kind}_{k}"], HEAD
    sum(head.get_loss(outputs, _truth(case)).values()).backward()
    for k, x in enumerate(features):
        yield "gradient", f"feat_{k}", x.grad, case[f"grad_feat_{k}"], GRADIENT
    yield from parameter_gradients(head, case)
    yield from _after_forward(case, head, outputs)


def _truth(case):
    return {**batch_of_boxes(case), "pad_shape": paddle.to_tensor(case["in_pad_shape"])}


def _after_forward(case, head, outputs):
    targets = _truth(case)
    for k, maps in enumerate(zip(*outputs[1:])):
        for name, x in zip(("extra_box_init", "out_box_refine"), maps):
            yield "value", f"{name[-10:]}_{k}", head.boxes(x), case[f"{name}_{k}"], HEAD
    yield from _targets(case, head, outputs, targets)
    losses = head.level_losses(outputs, targets)
    for name in _LOSSES:
        for k, x in enumerate(losses[name]):
            yield "term", f"{name}_{k}", x, case[f"out_{name}_{k}"], LOSS
    total = sum(head.get_loss(outputs, targets).values())
    yield "value", "loss", total, case["out_loss"], LOSS
    yield from _of_outputs(case, head, targets)
    yield from _detections(case, head, outputs)


def _targets(case, head, outputs, targets):
    first = head._in_pixels(head.boxes(x) for x in outputs[1])
    initial, refined, ious = (x.numpy() for x in head.assign(outputs[0], first, targets))
    for i in range(len(initial)):
        valid = case[f"extra_valid_{i}"]
        yield "extra", f"valid_{i}", initial[i] > -2, valid, 0.0
        yield "extra", f"init_gt_index_{i}", initial[i], case[f"extra_init_gt_index_{i}"], 0.0
        yield "extra", f"refine_gt_index_{i}", refined[i], case[f"extra_refine_gt_index_{i}"], 0.0
        reference = case[f"extra_refine_max_iou_{i}"]
        yield "extra", f"refine_max_iou_{i}", ious[i][valid], reference[valid], HEAD
    labels, weights, *stages = head.targets(outputs[0], first, targets)
    joined = {"labels": labels, "label_weights": weights}
    for kind, (boxes, own) in zip(("init", "refine"), stages):
        joined |= {f"box_targets_{kind}": boxes, f"box_weights_{kind}": own}
        factor = own.sum(axis=1).clip(min=1).sum()
        yield "extra", f"avg_factor_{kind}", factor, case[f"extra_avg_factor_{kind}"], 0.0
    for name, x in joined.items():
        reference = np.concatenate(case.numbered(f"extra_{name}_"), axis=1)
        # Where there is no box, what the target says has no weight.
        yield "extra", name, x, reference, HEAD if "targets" in name else 0.0


def _of_outputs(case, head, targets):
    """The gradient of the loss with respect to outputs that depend on nothing."""
    given = [[paddle.to_tensor(x, stop_gradient=False) for x in case.numbered(f"out_{kind}_")] for kind in _OUTPUTS]
    sum(head.get_loss(given, targets).values()).backward()
    for kind, maps in zip(_OUTPUTS, given):
        for k, x in enumerate(maps):
            yield "gradient", f"{kind}_{k}", x.grad, case[f"grad_{kind}_{k}"], GRADIENT


def _detections(case, head, outputs):
    with paddle.no_grad():
        boxes, scores = head.decode(outputs, paddle.to_tensor(case["in_img_shape"]))
    scales = paddle.to_tensor(case["in_scale_factor"]).tile([1, 2]).unsqueeze(1)
    for i in range(len(boxes)):
        kinds, places = np.nonzero(scores[i].numpy() > case.hyper["score_thr"])
        before = np.column_stack([kinds, scores[i].numpy()[kinds, places], boxes[i].numpy()[places]])
        yield from _stored(case, "prenms", i, before)
    for name, own in (("det", boxes), ("det_rescaled", boxes / scales)):
        rows, counts, _ = head.nms(own, scores)
        for i, found in enumerate(np.split(rows.numpy().reshape(-1, 6), np.cumsum(counts.numpy())[:-1])):
            yield from _stored(case, name, i, found)


def _stored(case, name, i, rows):
    stored = (case[f"out_{name}_{what}_{i}"] for what in ("boxes", "scores", "labels"))
    yield from same_detections(f"{name} of image {i}", rows, *stored)
