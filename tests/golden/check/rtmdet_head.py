"""What to compute from the golden fixtures of RTMDet's head: targets, losses, post-processing; see `golden_rtmdet`."""

import numpy as np
import paddle
import paddle.nn.functional as F

from ppkd.bridge.workspace import import_ppdet
from ppkd.losses.boxes import corner_giou_loss
from ppkd.losses.focal import quality_focal

LOSS, GRADIENT = 1e-5, 1e-5


def build_head(classes, channels=8, **options):
    """The head with the reference's way to treat the rows that fill up a batch."""
    import_ppdet()
    from ppdet.modeling.layers import MultiClassNMS

    from ppkd.models.rtmdet import DynamicSoftLabelAssigner, RTMDetHead

    options = {"nms": MultiClassNMS(0.001, -1, 300, 0.65), **options}
    return RTMDetHead(classes, channels, assigner=DynamicSoftLabelAssigner(padding_competes=True), **options)


def truth(rows, images):
    """ppdet's targets of rows ``image, class, x1, y1, x2, y2``."""
    per_image = [rows[rows[:, 0] == i] for i in range(images)]
    most = max(map(len, per_image))
    found = {"gt_class": np.zeros((images, most, 1), "int32"), "gt_bbox": np.zeros((images, most, 4), "float32")}
    found["pad_gt_mask"] = np.zeros((images, most, 1), "float32")
    for i, rows in enumerate(per_image):
        found["gt_class"][i, : len(rows), 0], found["gt_bbox"][i, : len(rows)] = rows[:, 1], rows[:, 2:]
        found["pad_gt_mask"][i, : len(rows)] = 1
    return {name: paddle.to_tensor(array) for name, array in found.items()}


def post_processing(case):
    """``post_case``: from raw outputs to boxes in the image."""
    import_ppdet()
    from ppdet.modeling.layers import MultiClassNMS

    test, maps = case.meta["test_cfg"], [[case[f"in_{kind}_{i}"] for i in range(3)] for kind in ("cls", "reg")]
    nms = MultiClassNMS(test["score_thr"], -1, test["max_per_img"], test["nms"]["iou_threshold"])
    options = {"nms_pre": test["nms_pre"], "multi_label": test["multi_label"]}
    head = build_head(case.meta["num_classes"], nms=nms, **options)
    boxes, scores = head.decode(*([paddle.to_tensor(x) for x in group] for group in maps))
    yield "value", "decoded_bboxes", boxes, case["extra_decoded_bboxes"], LOSS
    yield "value", "scores", scores.transpose([0, 2, 1]), case["extra_scores"], LOSS
    pads = case["in_pad_param"] if "in_pad_param" in case else np.zeros((len(boxes), 4), "float32")
    found = detections(head, boxes, scores, case["in_scale_factor"], pads, case["in_ori_shape"])
    for i, rows in enumerate(found):
        yield from same_detections(case, i, rows, 1e-3, 1e-5)


def detections(head, boxes, scores, ratios, pads, sizes):
    """Per image the rows ``class, score, x1, y1, x2, y2`` in an image that was padded on its left and top too."""
    corner = paddle.to_tensor(np.stack([pads[:, 2], pads[:, 0]] * 2, axis=1)[:, None].astype("float32"))
    boxes = head.to_original(boxes - corner, paddle.to_tensor(ratios[:, ::-1].astype("float32")))
    rows, counts = head.suppress(boxes, scores, paddle.to_tensor(sizes.astype("float32")))
    return np.split(rows.numpy().reshape(-1, 6), np.cumsum(counts.numpy())[:-1])


def same_detections(case, i, rows, pixels, score):
    """That the detections of an image are the stored ones, as sets: scores may be as good as equal."""
    boxes, labels = case[f"out_bboxes_{i}"], case[f"out_labels_{i}"]
    yield "value", f"detections of image {i}", len(rows), len(boxes), 0.0
    if not len(boxes) or len(rows) != len(boxes):
        return
    gap = np.maximum(
        np.abs(rows[:, None, 2:] - boxes).max(axis=2) / pixels,
        np.abs(rows[:, None, 1] - case[f"out_scores_{i}"]) / score,
    )
    gap = np.where(rows[:, None, 0] == labels, gap, np.inf)
    # Each has its own partner, in both directions.
    worst = max(gap.min(axis=0).max(), gap.min(axis=1).max())
    yield "value", f"detections of image {i} (of what is allowed)", 1 + worst, 1.0, 1.0


def assigner(case):
    """``assigner_case``."""
    import_ppdet()
    from ppkd.models.rtmdet import DynamicSoftLabelAssigner

    hyper = case.hyper
    options = hyper["topk"], hyper["soft_center_radius"], hyper["iou_weight"], hyper["eps"]
    assign = DynamicSoftLabelAssigner(*options, padding_competes=True)
    names = ("in_pred_scores", "in_pred_bboxes", "in_gt_labels", "in_gt_bboxes", "in_pad_flag")
    logits, boxes, *truth = (paddle.to_tensor(case[name]) for name in names)
    points, strides = paddle.to_tensor(case["in_priors"]).split(2, axis=1)
    labels, wanted, metrics = (x.numpy() for x in assign(logits, boxes, points, strides[:, :1], *truth))
    names = ("out_assigned_labels", "out_assigned_bboxes", "out_assign_metrics")
    references = [case[name] for name in names]
    if case.path.stem.endswith("case8"):
        # Ties: which points are chosen is up to the sort, but neither how many nor what they learn.
        positive = [x < hyper["num_classes"] for x in (labels, references[0])]
        yield "value", "number of positives", positive[0].sum(axis=1), positive[1].sum(axis=1), 0.0
        yield "value", "their labels", labels[positive[0]], references[0][positive[1]], 0.0
        yield "value", "their boxes", wanted[positive[0]], references[1][positive[1]], 0.0
        return
    for name, ours, reference in zip(names, (labels, wanted, metrics), references):
        yield "value", name, ours, reference, LOSS if name.endswith("metrics") else 0.0


def losses(case):
    """``losses``: quality focal and GIoU loss by themselves."""
    for reduction in ("none", "mean"):
        pred = paddle.to_tensor(case["in_qfl_pred"], stop_gradient=False)
        classes = pred.shape[1]
        hot = F.one_hot(paddle.to_tensor(case["in_qfl_label"]), classes + 1)[:, :-1]
        target = hot * paddle.to_tensor(case["in_qfl_score"]).unsqueeze(1)
        weight = paddle.to_tensor(case["in_qfl_weight"])
        rows = quality_focal(pred, target, case.hyper["qfl_beta"]).sum(axis=1) * weight
        yield from _reduced(case, "qfl", reduction, rows, pred)
        pred = paddle.to_tensor(case["in_giou_pred"], stop_gradient=False)
        rows = corner_giou_loss(pred, paddle.to_tensor(case["in_giou_target"]), case.hyper["giou_eps"])
        weight = case.hyper["giou_loss_weight"] * paddle.to_tensor(case["in_giou_weight"])
        yield from _reduced(case, "giou", reduction, rows * weight, pred)


def _reduced(case, kind, reduction, rows, pred):
    value = rows if reduction == "none" else rows.sum() / float(case[f"in_{kind}_avg_factor"])
    value.sum().backward()
    yield "value", f"{kind}_{reduction}", value, case[f"out_{kind}_{reduction}"], LOSS
    yield "gradient", f"{kind}_{reduction}", pred.grad, case[f"grad_{kind}_{reduction}"], GRADIENT


def head_loss(case):
    """``head_loss_case``: both losses of the head from raw outputs, with gradients."""
    head = build_head(case.hyper["num_classes"])
    names = [[f"{kind}_{i}" for i in range(3)] for kind in ("cls", "reg")]
    maps = {name: paddle.to_tensor(case[f"in_{name}"], stop_gradient=False) for group in names for name in group}
    outputs = [[maps[name] for name in group] for group in names]
    found = head.get_loss(outputs, truth(case["in_gt_rows"].reshape(-1, 6), len(case["in_cls_0"])))
    sum(found.values()).backward()
    for name, value in found.items():
        yield "value", name, value, case[f"out_{name}"], LOSS
    yield "extra", "decoded_bboxes", head.decode(*outputs)[0], case["extra_decoded_bboxes"], LOSS
    for name, x in maps.items():
        yield "gradient", name, x.grad, case[f"grad_{name}"], GRADIENT
