"""compat/neck_scales.py is needed: a second PicoDet of a process would have another neck than the first."""

from inspect import unwrap

import paddle
import pytest

from ppkd.bridge.workspace import import_ppdet
from tests.helpers_hosts import cured


def necks():
    """The three classes, once ppdet is imported and cured."""
    import_ppdet()
    from ppdet.modeling.necks.csp_pan import CSPPAN
    from ppdet.modeling.necks.es_pan import ESPAN
    from ppdet.modeling.necks.lc_pan import LCPAN

    return CSPPAN, ESPAN, LCPAN


@pytest.mark.parametrize("index", range(3))
def test_upstream_adds_to_the_default(index):
    kind = necks()[index]
    scales = [0.125, 0.0625, 0.03125]
    unwrap(kind.__init__)(kind.__new__(kind), [8, 8, 8], 8, num_features=4, spatial_scales=scales)
    assert len(scales) == 3 + cured("give_each_neck_its_own_scales")


@pytest.mark.parametrize("index", range(3))
def test_every_neck_is_the_first(index):
    kind = necks()[index]
    features = [paddle.zeros([1, 8, size, size]) for size in (16, 8, 4)]
    for _ in range(2):
        neck = kind([8, 8, 8], 8, num_features=4)
        neck.eval()
        assert [shape.stride for shape in neck.out_shape] == [8, 16, 32, 64]
        assert [level.shape[2] for level in neck(features)] == [16, 8, 4, 2]
