"""What to compute from the golden fixtures of SOLO's heads; see `report`."""

import numpy as np
import paddle
import paddle.nn.functional as F

from ppkd.bridge.workspace import import_ppdet
from tests.golden.check.heads import GRADIENT, HEAD, LOSS, SCORE, fill, parameter_gradients


def build_head(hyper):
    """The head that a case's settings describe."""
    import_ppdet()
    from ppkd.models.solo import DecoupledSOLOHead, SOLOHead, SOLOMatrixNMS

    kind = DecoupledSOLOHead if hyper["type"].startswith("Decoupled") else SOLOHead
    nms = SOLOMatrixNMS(hyper["nms_pre"], hyper["max_per_img"], hyper["filter_thr"], hyper["kernel"], hyper["sigma"])
    return kind(
        hyper["num_classes"], hyper["in_channels"], hyper["feat_channels"], hyper["stacked_convs"], hyper["strides"],
        hyper["num_grids"], hyper["cls_down_index"], hyper["gn_groups"],
        {"mask": hyper["dice_weight"], "class": hyper["loss_weight_cls"]}, hyper["score_thr"], hyper["mask_thr"], nms,
    )  # fmt: skip


def solo(case):
    """A case: of post-processing alone, of targets alone, or all of a head."""
    if "in_cls_score_0" in case:
        return _post(case)
    return _head(case) if "in_feat_0" in case else _targets_alone(case)


def _targets_alone(case):
    targets = _targets(case)
    for k in range(len(case.hyper["num_grids"])):
        yield from _wanted(case, k, targets)


def _head(case):
    head = build_head(case.hyper)
    fill(head, case)
    features = [paddle.to_tensor(x, stop_gradient=False) for x in case.numbered("in_feat_")]
    masks, classes = head(features)
    targets = _targets(case)
    levels = range(len(classes))
    for k in levels:
        yield "value", f"cls_{k}", classes[k], case[f"out_cls_{k}"], HEAD
        yield from _wanted(case, k, targets)
        yield from _forward(case, k, masks[k], targets)
    losses = head.get_loss((masks, classes), targets)
    total = sum(losses.values())
    for name, x in losses.items():
        yield "term", name, x, case[f"out_{name}"], LOSS
    yield "value", "loss", total, case["out_loss"], LOSS
    total.backward()
    for k in levels:
        yield "gradient", f"feat_{k}", features[k].grad, case[f"grad_feat_{k}"], GRADIENT
    yield from parameter_gradients(head, case)
    yield from _of_outputs(case, head, masks, classes, targets)
    with paddle.no_grad():
        yield from _detections(case, head, masks, classes)


def _targets(case):
    """The batch as the reader's transform makes it."""
    from ppkd.models.solo.targets import batch_targets

    hyper, batch = case.hyper, case["in_batch_shape"]
    samples = []
    for boxes, kinds, masks in zip(*(case.numbered(f"in_gt_{name}_") for name in ("boxes", "labels", "masks"))):
        image = np.zeros([3, *batch], "float32")
        samples.append({"image": image, "gt_bbox": boxes, "gt_class": kinds, "gt_segm": masks})
    batch_targets(samples, hyper["num_grids"], hyper["scale_ranges"], hyper["strides"], hyper["pos_scale"])
    return {name: paddle.to_tensor(np.stack([one[name] for one in samples])) for name in samples[0]}


def _wanted(case, k, targets):
    labels = targets[f"solo_labels{k}"].numpy()
    labels = np.where(labels < 0, case.hyper["num_classes"], labels)
    yield "extra", f"labels_{k}", labels, case[f"extra_labels_{k}"], 0.0
    place, true = _positive(targets, k)
    yield "extra", f"pos_cells_{k}", place, case[f"extra_pos_cells_{k}"], 0.0
    yield "extra", f"mask_targets_{k}", true, case[f"extra_mask_targets_{k}"], 0.0


def _positive(targets, k):
    """(image, cell) of a level's cells that have an object, and their masks."""
    objects = targets[f"solo_cells{k}"].numpy()
    place = np.argwhere(objects.reshape(len(objects), -1) >= 0)
    which = objects.reshape(len(objects), -1)[tuple(place.T)]
    return place, targets[f"solo_masks{k}"].numpy()[place[:, 0], which]


def _forward(case, k, maps, targets):
    place, _ = _positive(targets, k)
    if isinstance(maps, tuple):
        for axis, x in zip("xy", maps):
            yield "value", f"mask_{axis}_{k}", x, case[f"out_mask_{axis}_{k}"], HEAD
        return
    maps = maps.numpy()
    yield "value", f"mask_sum_{k}", maps.sum(axis=(2, 3)), case[f"out_mask_sum_{k}"], HEAD
    chosen = maps[:, case[f"extra_mask_channels_{k}"]]
    yield "value", f"mask_selected_{k}", chosen, case[f"out_mask_selected_{k}"], HEAD
    stored = case[f"out_mask_pos_{k}"]
    first = place[: len(stored)]
    yield "value", f"mask_pos_{k}", maps[first[:, 0], first[:, 1]], stored, HEAD


def _of_outputs(case, head, masks, classes, targets):
    """The gradient of the loss with respect to outputs that depend on nothing."""

    def free(x):
        return tuple(map(free, x)) if isinstance(x, tuple) else paddle.to_tensor(x.numpy(), stop_gradient=False)

    masks, classes = [free(x) for x in masks], [free(x) for x in classes]
    sum(head.get_loss((masks, classes), targets).values()).backward()
    for k, (maps, kinds) in enumerate(zip(masks, classes)):
        yield "gradient", f"cls_{k}", kinds.grad, case[f"grad_cls_{k}"], GRADIENT
        if isinstance(maps, tuple):
            for axis, x in zip("xy", maps):
                yield "gradient", f"mask_{axis}_{k}", x.grad, case[f"grad_mask_{axis}_{k}"], GRADIENT
            continue
        place, _ = _positive(targets, k)
        own = maps.grad.numpy()[place[:, 0], place[:, 1]].astype("float64")
        stored = case[f"grad_mask_pos_{k}"]
        yield "gradient", f"mask_pos_{k}", own[: len(stored)], stored, GRADIENT
        norms = np.sqrt((own**2).sum(axis=(1, 2)))
        yield "gradient", f"mask_pos_l2_{k}", norms, case[f"extra_grad_mask_pos_l2_{k}"], GRADIENT


def _detections(case, head, masks, classes):
    from ppkd.models.solo.head import peaks

    for k, x in enumerate(classes):
        yield "value", f"eval_cls_{k}", peaks(F.sigmoid(x)), case[f"out_eval_cls_{k}"], HEAD
    fine = _size(masks[0])
    for i in range(len(classes[0])):
        scores = [peaks(F.sigmoid(x[i : i + 1])) for x in classes]

        def masks_of(k, cells, i=i):
            return head.probabilities(masks[k], paddle.full_like(cells, i), cells, k, fine)

        yield from _found(case, head, i, scores, masks_of)


def _size(maps):
    return (maps[0] if isinstance(maps, tuple) else maps).shape[2:]


def _post(case):
    """``post1``, ``post2``: from probabilities of masks and scores to detections."""
    head = build_head(case.hyper)
    masks, scores = case.numbered("in_mask_prob_x200_"), case.numbered("in_cls_score_")
    for i in range(len(scores[0])):

        def masks_of(k, cells, i=i):
            return paddle.to_tensor(masks[k][i].astype("float32") / 200)[cells]

        yield from _found(case, head, i, [paddle.to_tensor(x[i : i + 1]) for x in scores], masks_of)


def _found(case, head, i, scores, masks_of):
    probabilities, inside, labels, scores = head.candidates(scores, masks_of)
    # What has the score 0 is what the reference leaves out.
    real = np.flatnonzero(scores.numpy() > 0)
    own = (scores, labels, inside.sum(axis=[1, 2]))
    for name, x in zip(("scores", "labels", "areas"), own):
        # Of an image without candidates the reference comes to no such arrays.
        stored = case[f"extra_prenms_{name}_{i}"] if f"extra_prenms_{name}_{i}" in case else np.zeros([0])
        yield "extra", f"prenms_{name}_{i}", x.numpy()[real], stored, SCORE if name == "scores" else 0.0
    kept, left = head.nms(inside, labels, scores)
    kept = kept.numpy()[:-1]
    if f"extra_kept_index_{i}" in case:
        yield "value", f"kept_index_{i}", np.searchsorted(real, kept), case[f"extra_kept_index_{i}"], 0.0
    yield "value", f"det_scores_{i}", left.numpy()[:-1], case[f"out_det_scores_{i}"], SCORE
    yield "value", f"det_labels_{i}", labels.numpy()[kept], case[f"out_det_labels_{i}"], 0.0
    shape, size = (paddle.to_tensor(case[f"in_{name}_shape"][i].astype("int32")) for name in ("img", "ori"))
    stored = case[f"out_det_masks_{i}"]
    if not len(stored):
        return
    masks = head.whole(probabilities[paddle.to_tensor(kept)], shape, size).numpy()
    # Interpolation in float32 decides pixels on the edge.
    yield "value", f"det_masks_{i} (pixels that differ)", 1 + (masks != stored).mean(), 1.0, 1e-4
