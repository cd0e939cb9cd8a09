"""Weighs many scalars at once, where one after the other each would be several operations, forward and backward."""

import functools

import paddle


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
        weights = _numbers(tuple(weights), values.dtype, str(values.place))
    products = values * weights
    return products.unbind(), products.sum()


def _scalar(weight, like):
    if isinstance(weight, paddle.Tensor):
        return weight.reshape([]).astype(like.dtype)
    return _numbers((weight,), like.dtype, str(like.place)).reshape([])


# They change with epochs, not with steps.
@functools.lru_cache(maxsize=64)
def _numbers(values, dtype, place):
    return paddle.to_tensor(values, dtype=dtype)
