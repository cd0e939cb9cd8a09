"""compat/sparse_sizes.py is needed: an exported Sparse R-CNN gets no sizes from a reader."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.compat.sparse_sizes import sizes_of
from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import defect


def test_upstream_asks_for_them():
    import_ppdet()
    from ppdet.modeling.architectures.sparse_rcnn import SparseRCNN

    class Bare:
        inputs = {"image": None}
        training = False
        backbone = neck = staticmethod(lambda x: x)
        head = staticmethod(lambda x, sizes: sizes)

    with defect("let_sparse_rcnn_know_its_images", KeyError, "img_whwh"):
        getattr(SparseRCNN, "upstreams_forward", SparseRCNN._forward)(Bare())


@pytest.mark.parametrize("height, width, factor", [(64, 96, (2.0, 1.5)), (32, 32, (0.25, 0.5))])
def test_the_sizes_are_those_of_the_readers_step(height, width, factor):
    import_ppdet()
    from ppdet.data.transform.batch_operators import Gt2SparseTarget

    sample = {
        "image": np.zeros((3, height, width), "float32"), "im_shape": np.array([height, width], "float32"),
        "scale_factor": np.array(factor, "float32"), "h": round(height / factor[0]), "w": round(width / factor[1]),
    }  # fmt: skip
    given = {key: paddle.to_tensor(np.stack([sample[key]] * 2)) for key in ("image", "im_shape", "scale_factor")}
    [wanted] = Gt2SparseTarget(use_padding_shape=True)([dict(sample)])
    for key, value in sizes_of(given).items():
        np.testing.assert_allclose(value.numpy(), np.stack([wanted[key]] * 2))
