"""How many images a graph with deformable attention takes, where Paddle cannot make one for any number."""

import paddle
import pytest
from paddle import nn

from ppkd.errors import UserError
from ppkd.exporting.static import _images_at_a_time


def model(kind, deformable=True):
    whole, part = nn.Layer(), type(kind, (nn.Layer,), {})()
    whole.transformer = part
    part.attention = nn.Layer()
    if deformable:
        part.attention.ms_deformable_attn_core = len
    return whole


def config(*shape):
    return {"TestReader": {"inputs_def": {"image_shape": list(shape)}}}


@pytest.mark.parametrize(
    ("version", "deformable", "shape", "images"),
    [
        ("2.6.2", True, (3, 64, 64), None), ("3.3.1", False, (3, 64, 64), None), ("3.3.1", True, (3, 64, 64), 1),
        ("3.3.1", True, (-1, 3, 64, 64), 1), ("3.3.1", True, (4, 3, 64, 64), 4),
    ],
)  # fmt: skip
def test_it_is_one_where_any_cannot_be_and_none_is_given(version, deformable, shape, images, monkeypatch):
    monkeypatch.setattr(paddle, "__version__", version)
    assert _images_at_a_time(model("RTDETRTransformer", deformable), config(*shape)) == images


@pytest.mark.parametrize("version", ["2.6.2", "3.3.1"])
def test_rtdetr_v2_takes_one_on_either_paddle(version, monkeypatch):
    monkeypatch.setattr(paddle, "__version__", version)
    assert _images_at_a_time(model("RTDETRTransformerv2"), config(3, 64, 64)) == 1
    assert _images_at_a_time(model("RTDETRTransformerv2"), config(2, 3, 64, 64)) == 2


@pytest.mark.parametrize("kind", ["DeformableTransformer", "DINOTransformer"])
def test_what_paddle_3_cannot_trace_is_refused_in_one_line(kind, monkeypatch):
    monkeypatch.setattr(paddle, "__version__", "3.3.1")
    with pytest.raises(UserError, match=f"no graph of {kind}: export it with Paddle 2.6.2"):
        _images_at_a_time(model(kind), config(3, 64, 64))
    monkeypatch.setattr(paddle, "__version__", "2.6.2")
    assert _images_at_a_time(model(kind), config(3, 64, 64)) is None
