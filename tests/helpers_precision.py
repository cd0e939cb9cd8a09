"""Stands for a GPU's mixed precision on the CPU, whose operators know next to nothing of the lower types.

Paddle's own `decorate` runs, but for its look at the device: weights and what `state_dict` gives are as on a GPU. What
computes with such weights, the convolutions and the optimizer's kernel, computes in float32 and rounds as a GPU would.
"""

import contextlib
import importlib
from types import SimpleNamespace
from unittest import mock

import paddle

HALVES = (paddle.float16, paddle.bfloat16)


def imitate(patch):
    """Patch Paddle, by pytest's `monkeypatch`; returns a list of ``(level, dtype)`` of the blocks that are entered."""
    module = importlib.import_module("paddle.amp.auto_cast")
    place = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
    convolve, step, entered, now = paddle.nn.functional.conv._conv_nd, paddle._C_ops.momentum_, [], [None]

    @contextlib.contextmanager
    def auto_cast(enable=True, level="O1", dtype="float16", **lists):
        before, now[0] = now[0], dtype if enable else None
        entered.append((level, dtype) if enable else None)
        try:
            yield
        finally:
            now[0] = before

    def decorate(**options):
        with patch.context() as inner:
            inner.setattr(module, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
            inner.setattr(module, "_is_gpu_float16_supported", lambda: True)
            inner.setattr(module, "_is_gpu_bfloat16_supported", lambda: True)
            return module.amp_decorate(**options)

    def rounded(x, dtype):
        return x if x is None or dtype is None else x.astype(dtype).astype("float32")

    def convolution(x, weight, bias=None, *more, **options):
        wide = [each if each is None else each.astype("float32") for each in (weight, bias)]
        assert now[0] or weight.dtype not in HALVES, "a GPU refuses weights of a lower type outside of auto_cast"
        weight, bias = (rounded(each, now[0]) for each in wide)
        return rounded(convolve(rounded(x, now[0]), weight, bias, *more, **options), now[0])

    def momentum(parameter, gradient, velocity, rate, master, *rest):
        if parameter.dtype not in HALVES:
            return step(parameter, gradient, velocity, rate, master, *rest)
        *settings, find_master, scale = rest
        assert find_master and master.dtype == paddle.float32
        step(master, gradient.astype("float32"), velocity, rate, None, *settings, False, scale)
        paddle.assign(master.astype(parameter.dtype), parameter)
        return parameter

    patch.setattr(paddle.amp, "auto_cast", auto_cast)
    patch.setattr(paddle.amp, "decorate", decorate)
    patch.setattr(paddle.amp, "is_bfloat16_supported", lambda: True)
    patch.setattr(paddle.nn.functional.conv, "_conv_nd", convolution)
    patch.setattr(paddle._C_ops, "momentum_", momentum)
    patch.setattr("ppkd.training.precision.Precision._possible", lambda self: True)
    return entered


@contextlib.contextmanager
def in_float16(*operators):
    """A block under mixed precision, as a GPU would have it: Paddle on the CPU knows its state and casts nothing.

    Args:
        operators: methods of tensors whose results are rounded to float16 where that state is on.
    """
    tracer, off = paddle.base.framework._dygraph_tracer(), paddle.base.core.AmpLevel.O0
    before = tracer._amp_level

    def rounding(function):
        def wrapped(*args, **options):
            found = function(*args, **options)
            if tracer._amp_level == off or not found.is_floating_point():
                return found
            return found.astype("float16").astype(found.dtype)

        return wrapped

    tracer._amp_level = paddle.base.core.AmpLevel.O1 if operators else before
    try:
        with contextlib.ExitStack() as patched:
            for name in operators:
                patched.enter_context(mock.patch.object(paddle.Tensor, name, rounding(getattr(paddle.Tensor, name))))
            yield
    finally:
        tracer._amp_level = before
