"""What to compute from the fixtures of Matching Guided Distillation; see :mod:`tests.golden.check.report`."""

import numpy as np
import paddle

from ppkd.engine.channel_matching import assign
from ppkd.engine.connectors import Norm
from ppkd.losses.partial_l2 import (
    channel_distances,
    negative_margins,
    partial_l2,
    reduce_maps,
    reduce_margins,
)

VALUE = GRADIENT = 1e-5
PARAMETER_GRADIENT = 1e-4
# Costs are truncated to integers: float32 may end up on the other side of one.
_ONE_UNIT = 1.0
# Of the stages c2 to c5 and p3 to p7.
_OF_DETECTORS = [5e7 * part for part in (1, 1, 0.1, 0.1, 1, 1, 0.01, 0, 0)]


def mgd_matching(case):
    """All of a case: margins, statistics, assignments, and the loss with each reducer."""
    hyper = case.hyper
    layers = range(hyper["layers"])
    margins = {}
    images = int(case["extra_num_tracked"])
    for layer in layers:
        if layer not in hyper["ignore_inds"]:
            norm = (paddle.to_tensor(case[f"in_teacher_bn_{x}_{layer}"]) for x in ("weight", "bias"))
            margins[layer], expected = negative_margins(*norm), case[f"out_margin_{layer}"]
            yield "value", f"margin_{layer}", margins[layer].numpy().reshape(expected.shape), expected, VALUE
        elif f"extra_adjacency_{layer}" not in case:
            continue
        distances = _tracked(case, layer)
        yield "extra", f"adjacency_{layer}", distances / images, case[f"extra_adjacency_{layer}"], VALUE
        yield from _assignments(case, layer, distances, images)
    for reducer in hyper["reducers"]:
        yield from _loss(case, reducer, margins)


def _tracked(case, layer):
    """The distances summed over the tracking batches, in float64."""
    total, batch = 0.0, 0
    while f"in_track_student_{batch}_{layer}" in case:
        pair = (paddle.to_tensor(case[f"in_track_{side}_{batch}_{layer}"]) for side in ("student", "teacher"))
        total, batch = total + channel_distances(*pair).numpy().astype(np.float64), batch + 1
    return total


def _assignments(case, layer, distances, images):
    """Compared by total cost and, for each channel of the student, by the set of the teacher's: no more is unique."""
    costs = case[f"extra_integer_cost_{layer}"]
    ours = (distances / images * 1e5).astype(np.int64)
    # A shaved teacher's last channels have no part in the pooling reducers.
    yield "extra", f"integer_cost_{layer}", _beyond(ours[:, : costs.shape[1]], costs), 0.0, 0.0
    students = len(costs)
    for kind, single in (("pool", False), ("sm", True)):
        found = assign(distances, images, single)
        # The reference has the channel of row r at r, and student channel r mod S there.
        reference = case[f"extra_flow_{kind}_{layer}"][: found.size].reshape(-1, students)
        name = f"flow_{kind}_{layer}"
        yield "extra", name, found, np.sort(reference, axis=0), 0.0
        total = int(ours[np.arange(students), found].sum())
        yield "value", f"total_cost_{kind}_{layer}", total, case[f"out_flow_total_cost_{kind}_{layer}"], VALUE


def _beyond(ours, reference):
    """How far integers are from each other beyond one unit."""
    return max(0.0, float(np.abs(ours - reference).max()) - _ONE_UNIT)


def _loss(case, reducer, margins):
    """Value and gradients with the fixture's own assignment, on which random drop depends."""
    hyper = case.hyper
    terms, sides, norms = {}, {}, {}
    for layer in range(hyper["layers"]):
        if layer in hyper["ignore_inds"]:
            continue
        student = paddle.to_tensor(case[f"in_student_{layer}"], stop_gradient=False)
        teacher = paddle.to_tensor(case[f"in_teacher_{layer}"])
        norm = Norm(student.shape[1], None, "gn" if hyper["det"] else "bn").norm
        for own in ("weight", "bias"):
            getattr(norm, own).set_value(case[f"param_student_norm_{layer}.{own}"])
        reduced, margin = _reduced(case, reducer, layer, teacher, margins[layer], student.shape)
        # The reference sums over the batch.
        term = partial_l2(norm(student), paddle.maximum(reduced, margin)) * len(student)
        terms[layer], sides[layer], norms[layer] = term, student, norm
        for name, ours in (("reduced_teacher", reduced), ("reduced_margin", margin)):
            yield "value", f"{name}_{reducer}_{layer}", ours, case[f"out_{name}_{reducer}_{layer}"], VALUE
        yield "term", f"{reducer}_{layer}", term, case[f"out_terms_{reducer}_{layer}"], VALUE
    # A layer that is ignored keeps its place among the divisors.
    layers = hyper["layers"]
    divisors = _OF_DETECTORS if hyper["det"] else [2.0 ** (layers - 1 - k) for k in range(layers)]
    total = sum(term / divisors[k] for k, term in terms.items())
    total.backward()
    yield "value", f"loss_{reducer}", total, case[f"out_loss_{reducer}"], VALUE
    for layer, norm in norms.items():
        name = f"student_{reducer}_{layer}"
        yield "gradient", name, sides[layer].grad, case[f"grad_{name}"], GRADIENT
        for own in ("weight", "bias"):
            name = f"student_norm_{layer}.{own}_{reducer}"
            yield "gradient", name, getattr(norm, own).grad, case[f"grad_param_{name}"], PARAMETER_GRADIENT


def _reduced(case, reducer, layer, teacher, margins, shape):
    channels = shape[1]
    kind = "sm" if reducer == "sm" else "pool"
    flow = case[f"extra_flow_{kind}_{layer}"]
    groups = 1 if reducer == "sm" else teacher.shape[1] // channels
    assignment = paddle.to_tensor(flow[: groups * channels].reshape(groups, channels))
    drawn = [None, None]
    if reducer == "rd":
        drawn = [
            paddle.to_tensor(case[f"mask_rd_{what}_{layer}"].astype(np.int64)) for what in ("feature", "margin")
        ]
        drawn = drawn[0].reshape(shape), drawn[1].flatten()
    return (
        reduce_maps(teacher, assignment, reducer, drawn[0]),
        reduce_margins(margins, assignment, reducer, drawn[1]),
    )
