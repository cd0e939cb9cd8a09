"""Weighed scalars are what their products are, also in their gradients."""

import paddle
import pytest

from ppkd.engine.weighing import added


@pytest.mark.parametrize("weights", [(2.0, 0.5, 3), (2.0, paddle.to_tensor([0.5]), paddle.to_tensor(3.0))])
def test_products_and_their_sum_have_the_gradients_of_their_own(weights):
    x = paddle.to_tensor([1.0, 4.0, 5.0])
    x.stop_gradient = False
    values = [x[0], x[1].reshape([1]), x[2] * x[2]]
    products, total = added(values, weights)
    assert [float(p) for p in products] == [2.0, 2.0, 75.0] and [p.shape for p in products] == [[]] * 3
    assert paddle.grad(total, [x], retain_graph=True)[0].tolist() == [2.0, 0.5, 30.0]
    for number, expected in enumerate(([2.0, 0, 0], [0, 0.5, 0], [0, 0, 30.0])):
        assert paddle.grad(products[number], [x], retain_graph=True)[0].tolist() == expected
    assert float(total) == 79.0


def test_one_that_is_not_finite_leaves_the_others_products_alone():
    products, total = added([paddle.to_tensor(float("nan")), paddle.to_tensor(2.0)], (1.0, 2.0))
    assert float(products[1]) == 4.0 and not bool(paddle.isfinite(total))
