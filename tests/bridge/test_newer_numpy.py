"""compat/newer_numpy.py is needed where numpy has taken away what Paddle and ppdet count on, and changes no number."""

import inspect

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat import newer_numpy
from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import defect


@pytest.mark.parametrize("convert", [int, float, range])
def test_a_tensor_of_one_value_is_that_number(convert):
    import_ppdet()
    one, name = paddle.to_tensor([3]), "__index__" if convert is range else f"__{convert.__name__}__"
    with defect("convert_tensors_of_one", TypeError, "0-dimensional"):
        inspect.unwrap(getattr(type(one), name))(one)
    assert convert(one) == convert(3) and convert(paddle.to_tensor(3)) == convert(3)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        convert(paddle.to_tensor([3, 4]))


def test_dimensions_of_one_value_alone_are_taken_away():
    convert = newer_numpy._without_dimensions(lambda x: x.shape)
    shapes = [convert(paddle.ones(shape)) for shape in ([], [1], [1, 1], [2], [0])]
    assert shapes == [[], [], [], [2], [0]]


def test_arrays_take_a_new_shape_by_its_name():
    import_ppdet()
    from ppdet.data.transform import batch_operators

    with defect("reshape_to_a_new_shape", TypeError, "newshape"):
        np.reshape(np.arange(6), newshape=[2, 3])
    for reshape in (batch_operators.np.reshape, newer_numpy._reshape):
        assert reshape(np.arange(6), newshape=[3, 2]).tolist() == [[0, 1], [2, 3], [4, 5]]
        assert reshape(np.arange(6), [2, 3], order="F").tolist() == [[0, 2, 4], [1, 3, 5]]
    assert batch_operators.np.float32 is np.float32


def _targets(make, **scores):
    from ppdet.data.transform.batch_operators import Gt2YoloTarget

    boxes = np.array([[0.5, 0.5, 0.25, 0.25], [0.2, 0.3, 0.5, 0.5]], "float32")
    sample = {"image": np.zeros([3, 32, 32]), "gt_bbox": boxes, "gt_class": np.array([[1], [0]], "int32"), **scores}
    operator = Gt2YoloTarget([[8, 8], [16, 16]], [[0, 1]], [16], num_classes=2)
    return make(operator, [sample])[0]


@pytest.mark.parametrize("scores", [{}, {"gt_score": np.array([[0.25], [0.75]], "float32")}])
def test_targets_of_yolov3_have_the_scores_of_their_boxes(scores):
    import_ppdet()
    from ppdet.data.transform.batch_operators import Gt2YoloTarget

    upstream = inspect.unwrap(Gt2YoloTarget.__call__)
    with defect("score_boxes_by_numbers", ValueError, "setting an array element"):
        _targets(upstream, **scores)
    found = _targets(Gt2YoloTarget.__call__, **scores)
    again = _targets(newer_numpy._with_scores_in_a_row(upstream), **scores)
    assert np.array_equal(found["target0"], again["target0"]) and not {"gt_score", "gt_class"} & set(found)
    assert sorted(found["target0"][:, 5].ravel()[found["target0"][:, 5].ravel() > 0]) == (
        [0.25, 0.75] if scores else [1, 1]
    )


def test_voc_counts_labels_in_columns_and_in_rows_alike():
    import_ppdet()
    from ppdet.metrics.map_utils import DetectionMAP

    upstream = inspect.unwrap(DetectionMAP.update)
    boxes, scores, labels = np.array([[0.0, 0, 9, 9], [20, 20, 29, 29]]), np.array([0.9, 0.8]), np.array([0, 1])

    def found(update):
        metric = DetectionMAP(2, catid2name={0: "a", 1: "b"})
        update(metric, boxes, scores, labels, boxes, np.array([[0], [0]]), np.array([[0], [1]]))
        return list(metric.class_gt_counts), metric.class_score_poss

    with defect("take_classes_for_numbers", TypeError, "0-dimensional"):
        found(upstream)
    for update in (DetectionMAP.update, newer_numpy._of_labels_in_a_row(upstream)):
        assert found(update) == ([1, 0], [[[0.9, 1.0]], [[0.8, 0.0]]])


def test_targets_of_centernet_do_not_change_what_the_reader_has():
    sample, given = {"gt_class": np.array([[1], [0]])}, []
    newer_numpy._with_classes_in_a_row(lambda self, sample, context: given.append(sample))(None, sample)
    assert given[0]["gt_class"].tolist() == [1, 0] and sample["gt_class"].shape == (2, 1)
