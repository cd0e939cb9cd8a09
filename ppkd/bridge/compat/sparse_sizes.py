"""ppdet's Sparse R-CNN asks its reader for sizes that an exported graph is not given."""

import paddle

from ppkd.bridge.compat.looks import NOT_NEEDED, says


def let_sparse_rcnn_know_its_images():
    """Have `SparseRCNN` reckon ``img_whwh``, ``scale_factor_whwh`` and ``ori_shape`` where the batch has none of them.

    Its reader makes them of what every batch has (``Gt2SparseTarget`` with ``use_padding_shape``, as in all of its
    configs). Without the patch it cannot be exported: the graph's inputs are image, ``im_shape`` and ``scale_factor``.

    Needed for: PaddleDetection's wheel and clones, develop of 2025 included.
    """
    from ppdet.modeling.architectures.sparse_rcnn import SparseRCNN

    if not says(SparseRCNN._forward, r'self\.inputs\["img_whwh"\]'):
        return NOT_NEEDED
    # Not by `wrapping.wrap`: what makes a graph looks through `__wrapped__`, and knows no closures.
    SparseRCNN.upstreams_forward, SparseRCNN._forward = SparseRCNN._forward, _with_sizes


def _with_sizes(self):
    if "img_whwh" not in self.inputs:
        self.inputs = {**self.inputs, **sizes_of(self.inputs)}
    return self.upstreams_forward()


def sizes_of(inputs):
    """The three, of ``image`` (N, 3, H, W), ``im_shape`` (N, 2) and ``scale_factor`` (N, 2)."""
    factor = inputs["scale_factor"]
    height, width = (paddle.shape(inputs["image"])[axis].astype("float32") for axis in (2, 3))
    whole = paddle.stack([width, height, width, height]).reshape([1, 4])
    return {
        "img_whwh": whole + paddle.zeros_like(paddle.concat([factor, factor], axis=1)),
        "scale_factor_whwh": paddle.concat([factor[:, 1:2], factor[:, 0:1]] * 2, axis=1),
        "ori_shape": paddle.round(inputs["im_shape"] / factor).astype("int32"),
    }
