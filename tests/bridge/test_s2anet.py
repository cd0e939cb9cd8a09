"""S2ANet: its aligned convolution asks a number for its ``numpy`` (clones), and its boxes join numbers (the wheel)."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import cured, defect


@pytest.fixture(scope="module")
def layer():
    import_ppdet()
    from ppdet.modeling.layers import AlignConv

    return AlignConv(3, 4, 3)


def _given():
    """A map, and anchors of three cells' side at each cell's place: nothing is moved."""
    rows, columns = (axis.flatten() * 8.0 for axis in paddle.meshgrid(paddle.arange(5.0), paddle.arange(6.0)))
    side, angle = paddle.full([30], 24.0), paddle.zeros([30])
    anchors = paddle.stack([columns, rows, side, side, angle], axis=-1).unsqueeze(0).tile([2, 1, 1])
    return paddle.randn([2, 3, 5, 6]), anchors, (5, 6), 8


def _plain(layer, x):
    return F.relu(F.conv2d(x, layer.align_conv.weight, layer.align_conv.bias, padding=1)).numpy()


def test_anchors_of_its_own_cells_make_it_a_convolution(layer):
    x, *rest = _given()
    np.testing.assert_allclose(layer(x, *rest).numpy(), _plain(layer, x), atol=1e-5)


def test_turned_anchors_move_it(layer):
    x, anchors, *rest = _given()
    found = layer(x, anchors + paddle.to_tensor([0.0, 0.0, 0.0, 0.0, 0.5]), *rest)
    assert not np.allclose(found.numpy(), _plain(layer, x), atol=1e-3)


def test_upstream_asks_a_number_for_its_numpy(layer):
    forward = type(layer).forward
    with defect("align_without_counting_images", AttributeError, "'int' object has no attribute 'numpy'"):
        getattr(forward, "__wrapped__", forward)(layer, *_given())


def test_found_boxes_go_back_to_the_files_pixels():
    from ppdet.modeling.heads.s2anet_head import S2ANetHead

    boxes = paddle.to_tensor([[1.0, 0.9, *[8.0, 4.0] * 4], [0.0, 0.5, *[2.0, 6.0] * 4]])
    counts, sizes = paddle.to_tensor([1, 1], "int32"), paddle.to_tensor([[64.0, 64.0]] * 2)
    found = S2ANetHead.get_pred(None, boxes, counts, sizes, paddle.to_tensor([[2.0, 4.0], [1.0, 2.0]]))
    assert found[:, 2:].tolist() == [[2.0, 2.0] * 4, [1.0, 6.0] * 4]


def test_upstream_cannot_join_numbers(monkeypatch):
    from ppdet.modeling.heads import s2anet_head

    if cured("concat_numbers") and s2anet_head.paddle is not paddle:
        monkeypatch.delitem(vars(s2anet_head.paddle), "concat")
        with pytest.raises(ValueError, match="axis is expected to be in range"):
            test_found_boxes_go_back_to_the_files_pixels()
