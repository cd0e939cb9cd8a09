"""PaddleDetection 2.7.1 takes sizes from ``.shape``, a list, and goes on with them as with the tensor they were."""

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.module_view import replace


def let_mask_nms_expand_by_sizes():
    """Let SOLOv2's matrix NMS expand to the number of its masks, which it gives as a list in a list.

    Without it SOLOv2 does not evaluate: "expand(): argument (position 2) must be list of int, but got list at pos 0".

    Needed for: PaddleDetection 2.7.1; not for the wheel nor the develop branch, which makes a tensor of it.
    """
    from ppdet.modeling import layers

    if not says(layers.MaskMatrixNMS.__call__, r"n_samples = \w+\.shape\s+(?!\s|n_samples = )"):
        return NOT_NEEDED
    return replace(layers.__name__, expand=_expand)


def _expand(x, shape):
    return paddle.expand(x, [size[0] if isinstance(size, (list, tuple)) else size for size in shape])


def let_rcnn_count_images():
    """Let the boxes of R-CNNs be decoded for as many images as a list of sizes says, of which they take a slice.

    Without it Faster and Mask R-CNN are not exported: "'list' object has no attribute 'shape'".

    Needed for: PaddleDetection 2.7.1; not for the wheel nor the develop branch, where the sizes are a tensor.
    """
    from ppdet.modeling import layers

    if not says(layers.RCNNBox.__call__, r"paddle\.slice\(\w+\.shape,"):
        return NOT_NEEDED
    return replace(layers.__name__, slice=_slice)


def _slice(x, axes, starts, ends):
    return x[starts[0]] if isinstance(x, (list, tuple)) else paddle.slice(x, axes, starts, ends)


def let_ttfnet_decode_by_sizes():
    """Let TTFNet find the best of its places and scale their boxes without marking sizes as having no gradient.

    Without it TTFNet does not evaluate: "'list' object has no attribute 'stop_gradient'".

    Needed for: PaddleDetection 2.7.1; not for the wheel nor the develop branch, where the sizes are tensors.
    """
    from ppdet.modeling.layers import TTFBox

    if not says(getattr(TTFBox, "ppdets_topk", TTFBox._topk), r"(\w+) = \w+\.shape\s+\1\.stop_gradient = "):
        return NOT_NEEDED
    if not hasattr(TTFBox, "ppdets_topk"):
        TTFBox.ppdets_topk, TTFBox._topk, TTFBox._decode = TTFBox._topk, _best_places, _decode


# Neither closures nor functools.wraps: an export traces the source, of a wrapped function that of the original.


def _best_places(self, scores):
    best, places = paddle.topk(scores.reshape([scores.shape[1], -1]), self.max_per_img)  # of each class, of one image
    best, chosen = paddle.topk(best.reshape([-1]), self.max_per_img)
    classes = (chosen // self.max_per_img).astype("float32")
    places = paddle.gather(places.reshape([-1]), chosen)
    ys, xs = places // scores.shape[3], places % scores.shape[3]
    return best, places, classes, ys.reshape([-1, 1]), xs.reshape([-1, 1])


def _decode(self, hm, wh, im_shape, scale_factor):
    scores, places, classes, ys, xs = self._topk(self._simple_nms(paddle.nn.functional.sigmoid(hm)))
    ys, xs = ys.astype("float32") * self.down_ratio, xs.astype("float32") * self.down_ratio
    sides = paddle.gather(wh.transpose([0, 2, 3, 1]).reshape([-1, 4]), places)  # left, top, right, bottom
    boxes = paddle.concat([xs - sides[:, 0:1], ys - sides[:, 1:2], xs + sides[:, 2:3], ys + sides[:, 3:4]], axis=1)
    scale_y, scale_x = scale_factor[:, 0:1], scale_factor[:, 1:2]
    boxes = boxes / paddle.concat([scale_x, scale_y, scale_x, scale_y], axis=1)
    found = paddle.concat([classes.unsqueeze(1), scores.unsqueeze(1), boxes], axis=1)
    # As there: one of no class, so that there is always something to gather.
    found = paddle.concat([found, paddle.to_tensor([[-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]], dtype="float32")])
    found = paddle.gather(found, paddle.nonzero(found[:, 1] > self.score_thresh))
    return found, found.shape[0:1]
