"""compat/label_types.py is needed: on Paddle 3 ppdet's assigners refuse the labels that its readers give."""

import paddle
import pytest

from ppkd.workspace import import_ppdet
from tests.helpers_training import PADDLE


@pytest.mark.skipif(PADDLE < 3, reason="Paddle 2 adds int32 to int64")
@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner"])
def test_int32_labels_are_assigned(name):
    """Once the undecorated assigner takes them, upstream has mended it and the patch can go."""
    import_ppdet()
    from ppdet.modeling import assigners

    boxes, labels = paddle.to_tensor([[[2.0, 2.0, 14.0, 14.0]]]), paddle.zeros([1, 1, 1], dtype="int32")
    anchors = paddle.to_tensor([[0.0, 0.0, 16.0, 16.0], [16.0, 16.0, 32.0, 32.0]])
    points, mask = paddle.to_tensor([[8.0, 8.0], [24.0, 24.0]]), paddle.ones([1, 1, 1])
    if name == "ATSSAssigner":
        assigner = assigners.ATSSAssigner(topk=1, num_classes=3)
        arguments = [anchors, [2], labels, boxes, mask, 3]
    else:
        assigner = assigners.TaskAlignedAssigner(topk=1)
        arguments = [paddle.rand([1, 2, 3]), anchors.unsqueeze(0), points, [2], labels, boxes, mask, 3]
    unpatched = type(assigner).forward.__wrapped__.__wrapped__  # below the patch for empty batches and this one
    with pytest.raises(TypeError):
        unpatched(assigner, *arguments)
    assert assigner(*arguments)[0].shape == [1, 2]
