"""Localisation distillation, as slowly as ``slow_losses``: box by box, anchor by anchor."""

import math

import numpy as np
import paddle
from slow_losses import Fixture, kl


def grid_anchors(sizes, strides):
    """Square anchors of side 8 * stride, one a cell: a list of (cells, 4), one for each level."""
    return [
        np.array(
            [
                [(x - 4) * stride, (y - 4) * stride, (x + 4) * stride, (y + 4) * stride]
                for y in range(height)
                for x in range(width)
            ],
            np.float32,
        )
        for (height, width), stride in zip(sizes, strides, strict=True)
    ]


def overlaps(a, b):
    """IoU of two boxes, and what the authors compare with the threshold."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    both = width * height
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    return both / (area_a + area_b - both), both / area_a - centre_gap(a, b) ** 2 / diagonal


def centre_gap(a, b):
    return math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)


def assign(levels, boxes, topk):
    """Assigned box (1 + its index, or 0) and region value of every anchor of one image."""
    anchors = np.concatenate(levels).astype(np.float64)
    assigned, best = np.zeros(len(anchors), np.int64), np.zeros(len(anchors))
    region = np.zeros(len(anchors))
    for index, box in enumerate(np.float64(boxes)):
        nearest, start = [], 0
        for level in levels:
            gaps = [centre_gap(anchor, box) for anchor in anchors[start : start + len(level)]]
            nearest += [start + i for i in np.argsort(gaps, kind="stable")[:topk]]
            start += len(level)
        ious = [overlaps(anchors[i], box)[0] for i in nearest]
        threshold = np.mean(ious) + np.std(ious, ddof=1)
        for i, anchor in enumerate(anchors):
            iou, value = overlaps(anchor, box)
            if 0.25 * threshold <= value < threshold:
                region[i] = max(region[i], iou)
            x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if i in nearest and iou >= threshold and inside and iou > best[i]:
                assigned[i], best[i] = index + 1, iou
    return assigned, region


def ld_vlr(levels, boxes, topk):
    assigned, region = assign(levels, boxes, topk)
    fixture = Fixture(0)
    fixture.add("in_anchors", np.concatenate(levels))
    fixture.add("in_num_level_anchors", np.array([len(level) for level in levels]))
    fixture.add("in_gt_boxes", np.array(boxes, np.float32))
    fixture.arrays["out_assigned_gt"] = assigned
    fixture.arrays["out_vlr_region"] = region.astype(np.float32)
    return fixture.describe({"topk": topk})


def ld_head(seed, sizes, boxes, classes, **hyper):
    """``boxes`` is a list for each image; labels are drawn."""
    fixture, bins, batch = Fixture(seed), hyper["reg_max"] + 1, len(boxes)
    levels = grid_anchors(sizes, hyper["strides"])
    per_image = [assign(levels, rows, hyper["topk"]) for rows in boxes]
    for image, rows in enumerate(boxes):
        fixture.add(f"in_gt_boxes_{image}", np.array(rows, np.float32).reshape(-1, 4))
    terms, start = {}, 0
    for k, (height, width) in enumerate(sizes):
        cells = slice(start, start + len(levels[k]))
        start = cells.stop
        labels = np.stack([np.where(a[cells] > 0, 0, classes) for a, _ in per_image])
        region = np.stack([r[cells] for _, r in per_image]).astype(np.float32)
        weights = np.float32(fixture.random.random(labels.shape))
        for name, array in (("labels", labels), ("vlr_region", region), ("label_weights", weights)):
            fixture.add(f"extra_{name}_{k}", array)
        fixture.add(f"extra_anchors_{k}", np.stack([levels[k]] * batch))
        maps = {
            f"{side}_{kind}": fixture.normal(f"in_{side}_{kind}_{k}", batch, count, height, width)
            for side in ("student", "teacher")
            for kind, count in (("cls", classes), ("box", 4 * bins))
        }

        def rows(kind, temp, image, y, x, maps=maps):
            """T^2 * mean over bins of the divergence at one anchor: one a side, or one."""
            here = [maps[f"{side}_{kind}"][image, :, y, x] for side in ("student", "teacher")]
            shape = [4, bins] if kind == "box" else [1, classes]
            return temp**2 * kl(*(x.reshape(shape) for x in here), temp, 1) / shape[1]

        ld = vlr = kd = paddle.zeros([1], "float64") * sum(x.sum() for x in maps.values())
        for image in range(batch):
            for cell in range(height * width):
                at = (image, *divmod(cell, width))
                if labels[image, cell] < classes:
                    scores = maps["student_cls"][at[0], :, at[1], at[2]].numpy()
                    weight = 1 / (1 + math.exp(-scores.max()))
                    ld = ld + weight * rows("box", hyper["ld_T"], *at).sum() / 4
                    weight = float(weights[image, cell])
                    kd = kd + weight * rows("cls", hyper["kd_T"], *at).sum()
                weight = float(region[image, cell])
                vlr = vlr + weight * rows("box", hyper["vlr_T"], *at).sum() / 16
        terms[f"ld_{k}"] = ld * hyper["ld_weight"]
        terms[f"ld_vlr_{k}"] = vlr * hyper["vlr_weight"]
        terms[f"kd_{k}"] = kd * hyper["kd_weight"] / max(int((labels < classes).sum()), 1)
    terms = {name: term.sum() for name, term in terms.items()}
    return fixture.finish(sum(terms.values()), {"num_classes": classes, **hyper}, terms)
