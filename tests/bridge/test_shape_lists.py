"""compat/shape_lists.py is needed where ppdet goes on with a list of sizes as with a tensor: PaddleDetection 2.7.1."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat import shape_lists
from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import cured, defect


def test_masks_are_compared_with_each_other(monkeypatch):
    import_ppdet()
    from ppdet.modeling import layers

    masks = paddle.to_tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    labels, scores = paddle.zeros([3], "int64"), paddle.to_tensor([0.9, 0.8, 0.7])
    nms = layers.MaskMatrixNMS(update_threshold=0.5, kernel="linear")
    _, kept, _ = nms(masks, masks, labels, scores, masks.sum([1, 2]))
    # The second is the first once more; the last is there twice, as ppdet has it, so that there is one always.
    np.testing.assert_allclose(kept.numpy(), [0.9, 0.7, 0.7], rtol=1e-6)
    if cured("let_mask_nms_expand_by_sizes"):
        monkeypatch.delitem(vars(layers.paddle), "expand")
    with defect("let_mask_nms_expand_by_sizes", (TypeError, ValueError), r"list of int"):
        nms(masks, masks, labels, scores, masks.sum([1, 2]))


def test_images_of_rcnns_are_counted():
    """That they are exported with it is a test of its own, of all detectors."""
    import_ppdet()
    from ppdet.modeling import layers

    if not cured("let_rcnn_count_images"):
        assert "slice" not in vars(layers.paddle) or layers.paddle is paddle
        return
    assert layers.paddle.slice([3, 2], [0], [0], [1]) == 3
    assert layers.paddle.slice(paddle.to_tensor([3, 2]), [0], [0], [1]).tolist() == [3]
    with pytest.raises((AttributeError, TypeError, ValueError)):
        range(paddle.slice([3, 2], [0], [0], [1]))


def test_ttfnet_finds_its_best_places():
    import_ppdet()
    from ppdet.modeling.layers import TTFBox

    box = TTFBox(max_per_img=2)
    with defect("let_ttfnet_decode_by_sizes", AttributeError, "stop_gradient"):
        getattr(box, "ppdets_topk", box._topk)(paddle.rand([1, 2, 4, 4]))


def test_what_ttfnet_finds_is_what_its_own_way_finds():
    import_ppdet()
    from ppdet.modeling.layers import TTFBox

    class Ours(TTFBox):
        _topk, _decode = shape_lists._best_places, shape_lists._decode

    paddle.seed(7)
    maps = [paddle.randn([1, 3, 4, 5]), paddle.rand([1, 4, 4, 5])]
    maps += paddle.to_tensor([[16.0, 20.0]]), paddle.to_tensor([[0.5, 2.0]])
    found = Ours(max_per_img=6, score_thresh=0.1)._decode(*maps)[0].numpy()
    np.testing.assert_allclose(found, TTFBox(max_per_img=6, score_thresh=0.1)._decode(*maps)[0].numpy(), rtol=1e-6)
    heat = paddle.nn.functional.sigmoid(maps[0])
    assert len(found) > 2 and found[0, 1] == np.float32(heat.max()), "the last is of no class"
    of_class, place = divmod(int(heat.argmax()), 20)
    x, y = place % 5 * 4.0, place // 5 * 4.0
    left, top, right, bottom = maps[1].transpose([0, 2, 3, 1]).reshape([-1, 4])[place].tolist()
    expected = [of_class, found[0, 1], (x - left) / 2, (y - top) / 0.5, (x + right) / 2, (y + bottom) / 0.5]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
