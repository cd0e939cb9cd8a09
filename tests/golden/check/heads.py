"""What the runners of whole heads share: weights by their own names, gradients, detections; see `report`."""

import numpy as np
import paddle

from ppkd.bridge.workspace import import_ppdet

# Largest relative errors allowed, as the fixtures' README has them: their tensors are rounded.
HEAD, GRADIENT, LOSS = 5e-5, 1e-4, 1e-5
PIXELS, SCORE = 0.02, 2e-4


def fill(head, case):
    """Set a head's parameters to the fixture's, which has them under the same names."""
    for name, parameter in head.named_parameters():
        parameter.set_value(case[f"param_{name}"].astype("float32").reshape(parameter.shape))


def parameter_gradients(head, case):
    """Of a large parameter the fixture has only norm and sum; a sum may cancel and is judged by the norm."""
    summed = case.meta.get("grad_param_as_l2_and_sum_only", ())
    for name, parameter in head.named_parameters():
        ours = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy().astype("float64")
        if name not in summed:
            reference = case[f"grad_param_{name}"]
            yield "gradient", name, ours.reshape(reference.shape), reference, GRADIENT
            continue
        norm, total = (float(case[f"extra_grad_{kind}_{name}"]) for kind in ("l2", "sum"))
        yield "gradient", f"{name} (norm)", np.sqrt((ours**2).sum()), norm, GRADIENT
        room = norm * np.sqrt(ours.size) or 1.0
        yield "gradient", f"{name} (sum)", 1 + (ours.sum() - total) / room, 1.0, GRADIENT


def batch_of_boxes(case):
    """ppdet's targets of the boxes and classes of a case, padded."""
    boxes, labels = case.numbered("in_gt_boxes_"), case.numbered("in_gt_labels_")
    most = max(map(len, boxes))
    kinds = (("gt_class", 1, "int32"), ("gt_bbox", 4, "float32"), ("pad_gt_mask", 1, "float32"))
    found = {name: np.zeros((len(boxes), most, width), dtype) for name, width, dtype in kinds}
    for i, (rows, kinds) in enumerate(zip(boxes, labels)):
        found["gt_class"][i, : len(rows), 0], found["gt_bbox"][i, : len(rows)] = kinds, rows
        found["pad_gt_mask"][i, : len(rows)] = 1
    return {name: paddle.to_tensor(array) for name, array in found.items()}


def nms(threshold, score, most):
    """ppdet's NMS without a limit of its own on what goes into it."""
    import_ppdet()
    from ppdet.modeling.layers import MultiClassNMS

    return MultiClassNMS(score, -1, most, threshold, return_index=True)


def same_detections(name, rows, boxes, scores, labels, pixels=PIXELS, score=SCORE):
    """That rows ``class, score, x1, y1, x2, y2`` are the stored detections, as sets."""
    yield "value", f"number of {name}", len(rows), len(boxes), 0.0
    if not len(boxes) or len(rows) != len(boxes):
        return
    gap = np.maximum(
        np.abs(rows[:, None, 2:] - boxes).max(axis=2) / pixels, np.abs(rows[:, None, 1] - scores) / score
    )
    gap = np.where(rows[:, None, 0] == labels, gap, np.inf)
    # Each has its own partner, in both directions.
    worst = max(gap.min(axis=0).max(), gap.min(axis=1).max())
    yield "value", f"{name} (of what is allowed)", 1 + worst, 1.0, 1.0
