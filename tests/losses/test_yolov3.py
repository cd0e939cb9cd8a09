"""YOLOv3: six gated terms, and which channels are whose."""

import numpy as np
import paddle
import pytest

from ppkd.losses import YOLOv3Loss
from ppkd.losses.yolov3 import yolov3_parts

ANCHORS, CLASSES, SIZE = 3, 2, (4, 5)


def _triple(batch=2, trained=False):
    triple = tuple(paddle.randn([batch, ANCHORS * fields, *SIZE]) for fields in (4, 1, CLASSES))
    for x in triple:
        x.stop_gradient = not trained
    return triple


def _gradients(term, triple):
    gradients = paddle.grad(term, triple, retain_graph=True, allow_unused=True)
    return [None if x is None else x.numpy() for x in gradients]


def _reference(student, teacher):
    """One element after the other, in float64."""
    student, teacher = ([x.numpy().astype("float64") for x in side] for side in (student, teacher))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def bce(logit, target):
        return -target * np.log(sigmoid(logit)) - (1 - target) * np.log(sigmoid(-logit))

    found = {name: [] for name in ("x", "y", "w", "h", "cls", "obj")}
    for n in range(len(student[0])):
        for a in range(ANCHORS):
            for place in np.ndindex(*SIZE):
                (s_box, s_obj, s_cls), (t_box, t_obj, t_cls) = ([x[(n, slice(None), *place)] for x in side]
                                                                for side in (student, teacher))  # fmt: skip
                gate = sigmoid(t_obj[a])
                for i, name in enumerate("xywh"):
                    s, t = s_box[4 * a + i], t_box[4 * a + i]
                    found[name].append(gate * (bce(s, sigmoid(t)) if name in "xy" else abs(s - t)))
                for k in range(CLASSES):
                    s, t = s_cls[CLASSES * a + k], t_cls[CLASSES * a + k]
                    found["cls"].append(gate * bce(s, sigmoid(t)))
                found["obj"].append(bce(s_obj[a], float(t_obj[a] > 0)))
    return {name: np.mean(values) for name, values in found.items()}


def test_terms_follow_their_formulas():
    student, teacher = _triple(), _triple()
    terms = yolov3_parts(student, teacher)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(_reference(student, teacher), rel=1e-5)


def test_equal_outputs_leave_only_the_hard_objectness_a_gradient():
    student = _triple(trained=True)
    terms = yolov3_parts(student, tuple(x.detach() for x in student))
    assert float(terms["w"]) == float(terms["h"]) == 0
    for name, term in terms.items():
        largest = max(np.abs(x).max() for x in _gradients(term, student) if x is not None)
        assert (largest > 1e-3) if name == "obj" else (largest < 1e-8), name


def test_where_the_teacher_sees_nothing_boxes_and_classes_teach_nothing():
    student, teacher = _triple(trained=True), _triple()
    teacher[1][:] = 60.0
    teacher[1][:, 0] = -60.0
    terms = yolov3_parts(student, teacher)
    objectness = terms.pop("obj")
    box, _, classes = _gradients(sum(terms.values()), student)
    assert np.abs(box[:, :4]).max() < 1e-20 and np.abs(classes[:, :CLASSES]).max() < 1e-20
    assert np.abs(box[:, 4:]).min() > 0 and np.abs(classes[:, CLASSES:]).min() > 0
    assert np.abs(_gradients(objectness, student)[1]).min() > 0


def test_half_precision_is_computed_in_float32():
    student, teacher = _triple(), _triple()
    exact = YOLOv3Loss()(student, teacher)
    for name, term in YOLOv3Loss()(*([x.astype("float16") for x in side] for side in (student, teacher))).items():
        assert term.dtype == paddle.float32
        assert float(term) == pytest.approx(float(exact[name]), rel=1e-2)


def test_large_outputs_stay_finite():
    student, teacher = ([x * 1000 for x in _triple()] for _ in range(2))
    assert all(np.isfinite(float(term)) for term in yolov3_parts(student, teacher).values())


@pytest.mark.parametrize("part", range(3))
def test_unequal_shapes_of_any_part_are_refused(part):
    student, teacher = _triple(), list(_triple())
    teacher[part] = teacher[part][:, 1:]
    with pytest.raises(ValueError, match=r"yolov3: student \[.*\] and teacher \[.*\] must have the same shape"):
        yolov3_parts(student, teacher)


@pytest.mark.parametrize("part", [0, 2])
def test_channels_that_do_not_fit_the_anchors_are_refused(part):
    wrong = list(_triple())
    wrong[part] = wrong[part][:, 1:]
    with pytest.raises(ValueError, match="do not fit 3 anchors"):
        yolov3_parts(wrong, wrong)
