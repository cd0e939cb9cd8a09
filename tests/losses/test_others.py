"""What is peculiar to one loss: masks of MGD, large logits, PKD's resizing, LD's regions."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from ppkd.losses import MGDLoss
from ppkd.losses.cwd import cwd
from ppkd.losses.kl import kl
from ppkd.losses.ld import atss_regions, ld_terms
from ppkd.losses.mgd import draw_mask
from ppkd.losses.normalise import batch_standardise
from ppkd.losses.pkd import pkd


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


def test_pkd_ignores_scale_and_shift_of_a_channel():
    student, teacher = paddle.randn([2, 4, 5, 6]), paddle.randn([2, 4, 5, 6])
    expected = float(pkd(student, teacher))
    assert float(pkd(student * 3 + 2, teacher)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("resize_student", [True, False])
def test_pkd_resizes_the_side_it_is_told_to(resize_student):
    student, teacher = paddle.randn([2, 4, 10, 12]), paddle.randn([2, 4, 5, 6])
    if resize_student:
        pair = F.interpolate(student, size=[5, 6], mode="bilinear"), teacher
    else:
        pair = student, F.interpolate(teacher, size=[10, 12], mode="bilinear")
    assert float(pkd(student, teacher, resize_student)) == float(pkd(*pair))


def test_pkd_refuses_maps_that_differ_in_width_alone():
    with pytest.raises(ValueError, match="same shape"):
        pkd(paddle.randn([2, 4, 5, 6]), paddle.randn([2, 4, 5, 7]))


# --- LD ----------------------------------------------------------------------------------------

CLASSES, BINS, SIZE, BATCH = 3, 4, (4, 5), 2
CELLS = SIZE[0] * SIZE[1]


def _sides(batch=BATCH):
    """(classes, edges) of student and teacher; the student's take gradients."""
    sides = []
    for trained in (True, False):
        maps = [paddle.randn([batch, channels, *SIZE]) for channels in (CLASSES, 4 * BINS)]
        for x in maps:
            x.stop_gradient = not trained
        sides.append(tuple(maps))
    return sides


def _targets(batch=BATCH, share=0.5):
    positive = paddle.rand([1, CELLS]) < share
    region = paddle.rand([1, CELLS]) * (paddle.rand([1, CELLS]) < share).astype("float32")
    return [x.tile([batch, 1]) for x in (positive, paddle.ones([1, CELLS]), region)]


def test_ld_without_positives_is_zero_and_connected():
    student, teacher = _sides()
    terms = ld_terms(student, teacher, *_targets(share=0.0))
    assert all(float(term) == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_ld_of_equal_heads_is_zero_and_has_no_gradient():
    student, _ = _sides()
    terms = ld_terms(student, tuple(x.detach() for x in student), *_targets())
    assert all(float(term) == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert all(float(x.grad.abs().max()) == 0 for x in student)


def test_ld_of_two_copies_is_that_of_one_unless_summed_as_the_authors_do():
    sides, targets = _sides(1), _targets(1)
    once = ld_terms(*sides, *targets)
    pairs = [tuple(paddle.concat([x, x]) for x in side) for side in sides]
    doubled = [paddle.concat([x, x]) for x in targets]
    averaged, summed = (
        ld_terms(*pairs, *doubled, batch_average=average) for average in (True, False)
    )
    for name, term in once.items():
        assert float(averaged[name]) == pytest.approx(float(term), rel=1e-5)
    for name in ("ld", "ld_vlr"):
        assert float(summed[name]) == pytest.approx(2 * float(once[name]), rel=1e-5)


def test_ld_in_half_precision_is_close():
    sides, targets = _sides(), _targets()
    half = [tuple(x.detach().astype("float16") for x in side) for side in sides]
    exact = ld_terms(*sides, *targets)
    for name, term in ld_terms(*half, *targets).items():
        assert term.dtype == paddle.float32
        assert float(term) == pytest.approx(float(exact[name]), rel=1e-2)


def _anchors():
    centre = (paddle.stack(paddle.meshgrid(paddle.arange(6), paddle.arange(6)), -1) + 0.5) * 8
    centre = centre.reshape([-1, 2]).astype("float32")
    return paddle.concat([centre - 12, centre + 12], axis=1)


@pytest.mark.parametrize("rows", [0, 2])
def test_regions_without_boxes_are_empty(rows):
    boxes = paddle.zeros([2, rows, 4])
    assigned, region = atss_regions(_anchors(), [36], boxes, paddle.zeros([2, rows]))
    assert assigned.shape == region.shape == [2, 36]
    assert int(assigned.max()) == 0 and float(region.max()) == 0


def test_padding_does_not_change_the_regions_of_an_image():
    box = paddle.to_tensor([[[4.0, 6.0, 30.0, 33.0]]])
    alone = atss_regions(_anchors(), [36], box, paddle.ones([1, 1]))
    rest = paddle.to_tensor([[[0.0, 0.0, 0.0, 0.0], [10.0, 5.0, 44.0, 40.0]]])
    padded = paddle.concat([box, rest], axis=1)
    beside = atss_regions(_anchors(), [36], padded, paddle.to_tensor([[1.0, 0.0, 0.0]]))
    assert int((alone[0] > 0).sum()) > 0 and int((alone[1] > 0).sum()) > 0
    for ours, expected in zip(beside, alone, strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())
