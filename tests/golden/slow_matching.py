"""Matching Guided Distillation written out a second time: loops over channels and every possible assignment.

As in :mod:`slow_losses`, nothing is shared with ``ppkd``.
"""

import itertools
import math

import numpy as np
import paddle
from slow_losses import Fixture


def margin(scale, mean):
    """The mean of the negative values of a normal variable, by a sum over fine steps."""
    scale = abs(scale)
    x = np.linspace(mean - 12 * scale, 0, 2_000_001)
    if x[0] >= 0 or 0.5 * math.erfc(mean / scale / math.sqrt(2)) <= 0.001:
        return -3 * scale
    density = np.exp(-0.5 * ((x - mean) / scale) ** 2)
    return np.trapz(x * density, x) / np.trapz(density, x)


def distances(student, teacher):
    """Sum over images of the squared distances of channel maps of length 1."""
    total = np.zeros((student.shape[1], teacher.shape[1]))
    for ours, theirs in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        for i, s in enumerate(ours):
            for j, t in enumerate(theirs):
                gap = s / np.linalg.norm(s) - t / np.linalg.norm(t)
                total[i, j] += (gap**2).sum()
    return total


def cheapest(costs, rows):
    """The columns of least total cost, one a row, of all ways to choose them; row r costs what channel r mod S does."""
    channels = np.arange(rows) % len(costs)
    best = min(itertools.permutations(range(costs.shape[1]), rows), key=lambda way: costs[channels, way].sum())
    return np.array(best), int(costs[channels, best].sum())


def matching(seed, student_shape, channels, groups, batches):
    """One layer, the student's batch norm, all four reducers; the teacher's last channels are left out."""
    fixture = Fixture(seed)
    batch, students, *size = student_shape
    fixture.normal("in_teacher_bn_weight_0", channels)
    fixture.add("in_teacher_bn_bias_0", np.linspace(-2, 6, channels))
    for name, scale in (("weight", 0.5), ("bias", 0.5)):
        fixture.normal(f"param_student_norm_0.{name}", students, scale=scale)
    fixture.normal("in_student_0", batch, students, *size)
    teacher = fixture.normal("in_teacher_0", batch, channels, *size).numpy()
    costs, images = 0, 0
    for number, count in enumerate(batches):
        fixture.normal(f"in_track_student_{number}_0", count, students, *size)
        fixture.normal(f"in_track_teacher_{number}_0", count, channels, *size)
        costs = costs + distances(*(fixture.arrays[f"in_track_{side}_{number}_0"] for side in ("student", "teacher")))
        images += count
    extra = fixture.arrays
    extra["extra_num_tracked"], extra["extra_adjacency_0"] = np.int64(images), (costs / images).astype(np.float32)
    costs = (costs / images * 1e5).astype(np.int64)
    margins = np.array([margin(*x) for x in zip(extra["in_teacher_bn_weight_0"], extra["in_teacher_bn_bias_0"])])
    extra["out_margin_0"] = margins.astype(np.float32).reshape([1, -1, 1, 1])
    kept = costs[:, : groups * students]
    extra["extra_integer_cost_0"] = kept
    flows = {}
    for kind, part, rows in (("pool", kept, groups * students), ("sm", costs, students)):
        flows[kind], extra[f"out_flow_total_cost_{kind}_0"] = cheapest(part, rows)
        extra[f"extra_flow_{kind}_0"] = flows[kind]
    drawn = fixture.random.integers(0, groups, (batch, students, size[0] * size[1], 1))
    extra["mask_rd_feature_0"] = drawn.astype(np.int8)
    extra["mask_rd_margin_0"] = fixture.random.integers(0, groups, (1, students, 1, 1)).astype(np.int8)
    for reducer in ("amp", "sp", "rd", "sm"):
        _loss(fixture, reducer, teacher, margins, flows, groups)
    hyper = {"layers": 1, "det": False, "ignore_inds": [], "reducers": ["amp", "sp", "rd", "sm"]}
    return fixture.describe(hyper)


def _loss(fixture, reducer, teacher, margins, flows, groups):
    student = fixture.tensors["in_student_0"]
    batch, students, height, width = student.shape
    flow = flows["sm" if reducer == "sm" else "pool"].reshape(-1, students)
    drawn = fixture.arrays["mask_rd_feature_0"].reshape(student.shape)
    reduced, limits = np.zeros(student.shape), np.zeros(students)
    for c in range(students):
        own = margins[flow[:, c]]
        of_margin = fixture.arrays["mask_rd_margin_0"][0, c, 0, 0]
        limits[c] = {"amp": own.mean(), "sp": own.max(), "rd": own[of_margin % len(own)], "sm": own[0]}[reducer]
        for n, y, x in itertools.product(range(batch), range(height), range(width)):
            values = teacher[n, flow[:, c], y, x]
            which = {"amp": np.abs(values).argmax(), "sp": values.argmax(), "rd": drawn[n, c, y, x] % len(own), "sm": 0}
            reduced[n, c, y, x] = values[which[reducer]]
    target = np.maximum(reduced, limits.reshape([1, -1, 1, 1]))
    weight, bias = (fixture.tensors[f"param_student_norm_0.{x}"].reshape([1, -1, 1, 1]) for x in ("weight", "bias"))
    mean = student.mean(axis=[0, 2, 3], keepdim=True)
    variance = ((student - mean) ** 2).mean(axis=[0, 2, 3], keepdim=True)
    normed = (student - mean) / (variance + 1e-5).sqrt() * weight + bias
    counts = ((normed.numpy() > target) | (target > 0)).astype(np.float64)
    loss = (paddle.to_tensor(counts) * (normed - paddle.to_tensor(target)) ** 2).sum()
    names = ["in_student_0", "param_student_norm_0.weight", "param_student_norm_0.bias"]
    found = paddle.grad(loss, [fixture.tensors[name] for name in names])
    out = fixture.arrays
    out[f"out_reduced_teacher_{reducer}_0"] = reduced.astype(np.float32)
    out[f"out_reduced_margin_{reducer}_0"] = limits.astype(np.float32).reshape([1, -1, 1, 1])
    out[f"out_loss_{reducer}"] = out[f"out_terms_{reducer}_0"] = np.float64(loss)
    out[f"grad_student_{reducer}_0"] = found[0].numpy().astype(np.float32)
    for name, gradient in zip(names[1:], found[1:], strict=True):
        out[f"grad_{name}_{reducer}"] = gradient.numpy().astype(np.float32)
