"""Each patch of compat/empty_batch.py is needed: without it ppdet 2.6.0 still does what its docstring says."""

import paddle
import pytest

from ppkd.workspace import import_ppdet
from tests.conftest import training_batch
from tests.helpers_training import PADDLE, first_images_with_boxes


@pytest.fixture(scope="module", autouse=True)
def _patched():
    import_ppdet()


def empty_assignment(name):
    """Arguments of an assigner's call for two images without a box: 4 anchors, 3 classes."""
    points, none = paddle.rand([4, 2]), paddle.zeros([2, 0, 4])
    labels, mask = paddle.zeros([2, 0, 1], dtype="int32"), paddle.zeros([2, 0, 1])
    if name == "ATSSAssigner":
        return [paddle.rand([4, 4]), [4], labels, none, mask, 3]
    return [paddle.rand([2, 4, 3]), paddle.rand([2, 4, 4]), points, [4], labels, none, mask, 3]


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner"])
def test_an_empty_batch_is_assigned_with_four_values(name):
    from ppdet.modeling import assigners

    cls = getattr(assigners, name)
    assigner, arguments = cls(num_classes=3) if name == "ATSSAssigner" else cls(), empty_assignment(name)
    assert len(cls.forward.__wrapped__(assigner, *arguments)) == 3, "upstream has mended it: delete the patch"
    labels, boxes, scores, mask = assigner(*arguments)
    assert (labels == 3).all() and boxes.shape == [2, 4, 4] and float(scores.sum()) == float(mask.sum()) == 0


def test_no_boxes_are_encoded_as_no_deltas():
    from ppdet.modeling.heads import retina_head

    none, one = paddle.zeros([0, 4]), paddle.to_tensor([[0.0, 0.0, 4.0, 4.0]])
    if PADDLE < 3:
        with pytest.raises(ValueError):
            retina_head.bbox2delta.__wrapped__(none, none)
    assert retina_head.bbox2delta(none, none).shape == [0, 4]
    assert retina_head.bbox2delta(one, one).abs().sum() == 0


def test_a_batch_of_background_trains_retinanet(recipe, shapes, tmp_path):
    from ppdet.modeling.heads.retina_head import RetinaHead

    from ppkd.build import build_student

    loaded = recipe("retinanet", distil=False, overrides=first_images_with_boxes(shapes, tmp_path / "few", 0))
    batch, student = training_batch(loaded), build_student(loaded)
    outputs = [student.head.retina_cls, student.head.retina_reg]
    features = [paddle.rand([2, 16, size, size]) for size in (8, 4)]
    outputs = [[head(x) for x in features] for head in outputs]
    patched = RetinaHead.get_loss(student.head, outputs, batch)
    if PADDLE < 3:
        with pytest.raises(ValueError):
            RetinaHead.get_loss.__wrapped__(student.head, outputs, batch)
    else:  # what Paddle 3 computes is what the patch stands for
        own = RetinaHead.get_loss.__wrapped__(student.head, outputs, batch)
        assert float(patched["loss"]) == pytest.approx(float(own["loss"]), rel=1e-5)
    assert float(patched["loss"]) > 0 == float(patched["loss_reg"])
