"""Tensors that were packed are parts of one."""

import paddle
import pytest

from ppkd.engine.packing import by_type, packed


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "float16", "bfloat16", "bool"])
def test_what_is_packed_is_a_copy_whose_parts_lie_in_the_whole(dtype):
    tensors = [paddle.to_tensor(values).astype(dtype) for values in ([[1.0, 0.0], [3.0, 4.0]], 5.0, [0.0])]
    copies, whole = packed(tensors)
    assert whole.astype("float32").tolist() == [float(paddle.to_tensor(x).astype(dtype)) for x in (1, 0, 3, 4, 5, 0)]
    assert [x.shape for x in copies] == [x.shape for x in tensors] and {x.dtype for x in copies} == {tensors[0].dtype}
    paddle.assign(paddle.zeros_like(whole), whole)
    assert not any(x.astype("bool").any() for x in copies)
    assert all(x.astype("bool").any() for x in tensors[:2]), "it was to be a copy"


def test_tensors_of_one_type_stay_together_in_their_order():
    a, b, c = paddle.ones([1]), paddle.ones([2], "int32"), paddle.ones([3])
    assert [[x.shape[0] for x in group] for group in by_type([a, b, c])] == [[1, 3], [2]]
