"""Weighs many scalars at once, where one after the other each would be several operations, forward and backward."""

import paddle

from ppkd.losses.kernels import numbers


def added(values, weights):
    """Each of the scalars times its weight, and the sum of these products.

    Args:
        values: scalar tensors, not none.
        weights: a number for each, or a scalar tensor without gradient.

    Returns:
        ``(products, sum)``.
    """
    values = paddle.stack([x.reshape([]) if x.ndim else x for x in values])
    if any(isinstance(weight, paddle.Tensor) for weight in weights):
        weights = paddle.stack([_scalar(weight, values) for weight in weights])
    else:
        weights = numbers(weights, values, values.dtype)
    products = values * weights
    return products.unbind(), products.sum()


def _scalar(weight, like):
    if isinstance(weight, paddle.Tensor):
        return weight.reshape([]).astype(like.dtype)
    return numbers([weight], like, like.dtype).reshape([])
