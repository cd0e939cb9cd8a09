"""What is peculiar to one loss: masks of MGD, large logits, PKD's resizing."""

import numpy as np
import paddle
import pytest

from ppkd.losses import MGDLoss
from ppkd.losses.cwd import cwd
from ppkd.losses.kl import kl
from ppkd.losses.mgd import draw_mask
from ppkd.losses.normalise import batch_standardise
from ppkd.losses.pkd import pkd
from ppkd.losses.score_l2 import score_l2


@pytest.mark.parametrize(
    ("mask", "shape"), [("spatial", [4, 1, 40, 50]), ("channel", [4, 512, 1, 1])]
)
def test_mgd_drops_the_given_fraction(mask, shape):
    keep = draw_mask([4, 512, 40, 50], 0.65, mask)
    assert keep.shape == shape
    assert set(np.unique(keep.numpy())) == {0.0, 1.0}
    assert float(keep.mean()) == pytest.approx(0.35, abs=0.05)


@pytest.mark.parametrize(("dropped", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_mgd_drops_all_or_nothing_at_the_ends(dropped, left):
    assert float(draw_mask([2, 4, 30, 30], dropped).mean()) == left


def test_mgd_draws_a_new_mask_at_every_call():
    loss, x = MGDLoss(4), paddle.randn([2, 4, 6, 7])
    assert float(loss(x, x)) != float(loss(x, x))


@pytest.mark.parametrize("scale", [100.0, 1000.0])
def test_large_logits_give_the_value_of_float64(scale):
    """Paddle's own log-softmax cuts off at -64 on CPU."""
    random = np.random.default_rng(0)
    student, teacher = (scale * random.standard_normal((2, 3, 4, 5)) for _ in range(2))

    def log_softmax(x):
        x = x.reshape(2, 3, 20) - x.reshape(2, 3, 20).max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    log_p, log_q = log_softmax(teacher), log_softmax(student)
    expected = (np.exp(log_p) * (log_p - log_q)).sum() / 6
    ours = cwd(*(paddle.to_tensor(x, dtype="float32") for x in (student, teacher)))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_a_high_temperature_does_not_cancel():
    random = np.random.default_rng(0)
    student, teacher = random.standard_normal((2, 4, 17)).astype(np.float32)
    exact = [paddle.to_tensor(x, dtype="float64") for x in (student, teacher)]
    rounded = [paddle.to_tensor(x) for x in (student, teacher)]
    expected = float(kl(*exact, tau=1000.0))
    assert float(kl(*rounded, tau=1000.0)) == pytest.approx(expected, rel=1e-4)


def test_kl_can_be_computed_without_gradient():
    with paddle.no_grad():
        value = kl(paddle.randn([4, 5]), paddle.randn([4, 5]))
    assert value.stop_gradient


def test_standardised_maps_have_mean_zero_and_deviation_one():
    x = paddle.randn([3, 4, 5, 6]) * 3 + 7
    x[:, 2] = 0.3
    y = batch_standardise(x).numpy().transpose(1, 0, 2, 3).reshape(4, -1)
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(1), [1, 1, 0, 1], atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 37.3])
def test_a_dead_channel_adds_nothing_to_pkd_whatever_its_value(constant):
    student, teacher = paddle.randn([2, 4, 50, 60]), paddle.randn([2, 4, 50, 60])
    student[:, 1], teacher[:, 1] = constant, 3 * constant
    others = [x[:, [0, 2, 3]] for x in (student, teacher)]
    assert float(pkd(student, teacher)) == pytest.approx(float(pkd(*others)) * 3 / 4, rel=1e-5)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd_with_an_epsilon_follows_its_formula(tau):
    random = np.random.default_rng(0)
    student, teacher = (random.standard_normal((2, 3, 4, 5)) for _ in range(2))

    def softmax(x):
        x = np.exp(x.reshape(2, 3, 20) / tau)
        return x / x.sum(-1, keepdims=True)

    p_s, p_t = softmax(student), softmax(teacher)
    expected = (p_t * (np.log(1e-5 + p_t) - np.log(1e-5 + p_s))).sum() / 6
    pair = [paddle.to_tensor(x, dtype="float32") for x in (student, teacher)]
    assert float(cwd(*pair, tau, divergence="kl_eps")) == pytest.approx(expected, rel=1e-4)
    assert float(cwd(*pair, tau)) == pytest.approx(expected * tau**2, rel=2e-3)


def test_pkd_ignores_scale_and_shift_of_a_channel():
    student, teacher = paddle.randn([2, 4, 5, 6]), paddle.randn([2, 4, 5, 6])
    expected = float(pkd(student, teacher))
    assert float(pkd(student * 3 + 2, teacher)) == pytest.approx(expected, rel=1e-4)


def test_pkd_refuses_maps_of_unequal_size():
    for size in ([5, 7], [4, 6], [10, 12]):
        with pytest.raises(ValueError, match="same shape"):
            pkd(paddle.randn([2, 4, 5, 6]), paddle.randn([2, 4, *size]))


def test_score_l2_refuses_scores_of_other_cells():
    with pytest.raises(ValueError, match=r"class logits are of \[2, 3\] cells, the features of \[3, 3\]"):
        score_l2(paddle.rand([1, 4, 3, 3]), paddle.rand([1, 4, 3, 3]), paddle.rand([1, 2, 2, 3]))
