"""The angle between maps: a slow formulation of its own, and what it does not look at."""

import numpy as np
import paddle
import pytest

from ppkd.losses.cosine import CosineLoss, cosine


def maps(seed, shape=(2, 5, 3, 4)):
    return np.random.RandomState(seed).standard_normal(shape).astype("float32")


def test_it_is_one_minus_the_mean_cosine():
    s, t = maps(0), maps(1)
    found = [
        1 - np.dot(s[n, :, y, x], t[n, :, y, x]) / np.linalg.norm(s[n, :, y, x]) / np.linalg.norm(t[n, :, y, x])
        for n in range(2) for y in range(3) for x in range(4)
    ]  # fmt: skip
    assert float(cosine(paddle.to_tensor(s), paddle.to_tensor(t))) == pytest.approx(np.mean(found), abs=1e-6)


def test_lengths_do_not_matter_and_nothing_reaches_the_teacher():
    s, t = paddle.to_tensor(maps(0), stop_gradient=False), paddle.to_tensor(maps(1), stop_gradient=False)
    loss = CosineLoss()(s, t)
    loss.backward()
    assert t.grad is None and float(s.grad.abs().sum()) > 0
    assert float(cosine(s * 7, t * 0.01)) == pytest.approx(float(loss), abs=1e-6)
    assert np.abs((s.grad * s).sum(axis=1).numpy()).max() < 1e-6, "a gradient along the vector would change its length"


@pytest.mark.parametrize("zero", [0, 1])
def test_a_zero_has_no_direction(zero):
    values = [maps(0), maps(1)]
    values[zero][:] = 0
    s, t = (paddle.to_tensor(value, stop_gradient=False) for value in values)
    loss = cosine(s, t)
    loss.backward()
    assert float(loss) == 1 and np.isfinite(s.grad.numpy()).all()


def test_half_precision_is_computed_in_full():
    s, t = maps(0) * 1000, maps(1) * 1000
    half = [paddle.to_tensor(x).astype("float16") for x in (s, t)]
    assert float(cosine(*half)) == pytest.approx(float(cosine(*(paddle.to_tensor(x) for x in (s, t)))), abs=1e-3)
    with pytest.raises(ValueError, match="cosine: student"):
        cosine(paddle.zeros([1, 2, 3, 3]), paddle.zeros([1, 2, 3, 4]))
