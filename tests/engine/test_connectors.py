"""Connectors make a student's tensor comparable to a teacher's."""

import numpy as np
import paddle
import pytest

from ppkd.bridge.ground_truth import BOXES, VALID
from ppkd.detectors import Level, Tap
from ppkd.detectors.context import Context
from ppkd.engine.connector_layers import build_connector
from ppkd.engine.connectors import CONNECTORS, Align, Identity
from ppkd.engine.loss_layers import context_names
from ppkd.engine.sides import Moment, RemainingLayers, Side, Sides
from ppkd.engine.sizes import match_size
from ppkd.engine.terms import Term
from ppkd.errors import UserError
from ppkd.losses import LOSSES
from ppkd.recipe.plan import TermSpec


def level(channels, stride=8):
    return Level("neck[0]", Tap("neck"), channels, stride)


def term(student=4, teacher=6, loss=None, **connectors):
    spec = TermSpec("t", "neck", "neck", loss or {"name": "fgd"}, **connectors)
    return Term(spec, [((level(student),), (level(teacher),))])


def batch_of(size):
    batch = {"image": paddle.zeros([2, 3, size, size]), "im_shape": paddle.full([2, 2], float(size))}
    batch[BOXES] = paddle.to_tensor([[[4.0, 4.0, 40.0, 30.0]], [[0.0] * 4]])
    batch[VALID] = paddle.to_tensor([[1.0], [0.0]])
    return Context(batch)


def test_identity_passes_the_very_tensor_on():
    x = paddle.rand([2, 4, 3, 3])
    identity = Identity(4, 6)
    assert identity(x) is x and identity.channels == 4 and identity.parameters() == []


def test_align_is_a_1x1_convolution_with_bias_only_where_channels_differ():
    x = paddle.rand([2, 4, 3, 5])
    align = Align(4, 6)
    weight, bias = align.conv.weight.numpy(), align.conv.bias.numpy()
    expected = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x.numpy()) + bias[None, :, None, None]
    np.testing.assert_allclose(align(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert (align.channels, align.conv.weight.shape) == (6, [6, 4, 1, 1])
    same = Align(4, 4)
    assert same(x) is x and same.channels == 4 and same.parameters() == []


@pytest.mark.parametrize("make", ["standardise", "align_standardise"])
def test_standardise_gives_every_channel_mean_0_and_variance_1(make):
    connector = CONNECTORS[make](4, 6 if make == "align_standardise" else 4)
    x = paddle.randn([3, 4, 8, 8]) * 7 + paddle.to_tensor([0.0, 5.0, -3.0, 100.0]).reshape([1, 4, 1, 1])
    outputs = []
    for mode in (connector.train, connector.eval):
        mode()
        outputs.append(connector(x).numpy())
    assert (outputs[0] == outputs[1]).all(), "no running statistics: train and eval are the same"
    assert outputs[0].shape[1] == connector.channels
    np.testing.assert_allclose(outputs[0].mean(axis=(0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(outputs[0].var(axis=(0, 2, 3)), 1, rtol=1e-3)
    assert not list(connector.buffers())


@pytest.mark.parametrize("make", ["normalise", "align_normalise"])
def test_normalise_divides_by_the_unbiased_deviation_plus_a_millionth(make):
    connector = CONNECTORS[make](4, 6 if make == "align_normalise" else 4)
    x = paddle.randn([2, 4, 2, 3]) * 7 + 5
    aligned = (connector.align(x) if make == "align_normalise" else x).numpy()
    mean, deviation = (f(aligned, axis=(0, 2, 3), keepdims=True) for f in (np.mean, _unbiased))
    for mode in (connector.train, connector.eval):
        mode()
        np.testing.assert_allclose(connector(x).numpy(), (aligned - mean) / (deviation + 1e-6), rtol=1e-4, atol=1e-5)
    assert connector.channels == aligned.shape[1] and not list(connector.buffers())


def _unbiased(x, **over):
    return np.std(x, ddof=1, **over)


def test_normalise_computes_in_float32():
    assert CONNECTORS["normalise"](4, 4)(paddle.randn([2, 4, 3, 3]).astype("float16")).dtype == paddle.float32


def test_align_is_always_there_if_asked_and_without_a_bias_if_not_wanted():
    made = Align(4, 4, always=True, bias=False)
    assert (made.conv.weight.shape, made.conv.bias) == ([4, 4, 1, 1], None)


def test_projector_is_two_convolutions_with_a_relu():
    x = paddle.randn([2, 4, 3, 5])
    made = CONNECTORS["projector"](4, 6, hidden=5)
    (w1, b1), (w2, b2) = ((c.weight.numpy()[:, :, 0, 0], c.bias.numpy()) for c in (made.inner, made.outer))
    hidden = np.maximum(np.einsum("oi,nihw->nohw", w1, x.numpy()) + b1[None, :, None, None], 0)
    expected = np.einsum("oi,nihw->nohw", w2, hidden) + b2[None, :, None, None]
    np.testing.assert_allclose(made(x).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert w1.shape == (5, 4) and made.channels == 6
    assert CONNECTORS["projector"](4, 6).inner.weight.shape == [6, 4, 1, 1], "hidden is the target's by default"


def test_resize_takes_the_other_sides_size():
    x, like = paddle.rand([1, 2, 4, 3]), paddle.rand([1, 9, 8, 6])
    made = CONNECTORS["resize"](2, 9)
    assert (made(x, Moment(like)).shape, made.channels) == ([1, 2, 8, 6], 2)
    np.testing.assert_allclose(made(x, Moment(like)).numpy(), bilinear(x, [8, 6]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask, axes", [("spatial", (1,)), ("channel", (2, 3))])
def test_generate_sees_what_is_not_dropped_and_draws_anew(mask, axes):
    made = CONNECTORS["generate"](3, 3, lambda_=0.5, mask=mask)
    x = paddle.rand([2, 3, 16, 16])
    x.stop_gradient = False
    first = made(x)
    first.square().sum().backward()
    assert first.shape == x.shape and made.channels == 3
    zero = (x.grad.numpy() == 0).all(axis=axes)
    assert 0.2 < zero.mean() < 0.8, "about half is dropped"
    assert (first.numpy() != made(x).numpy()).any()
    kept = CONNECTORS["generate"](3, 3, lambda_=0.0)
    assert (kept(x).numpy() == kept(x).numpy()).all(), "with nothing dropped there is nothing random"


def sides(student=4, teacher=7):
    return Sides(*(Side(Level("neck[0]", Tap("neck"), channels, 8)) for channels in (student, teacher)))


def test_a_chain_connects_in_order_and_each_link_gives_the_next_its_channels():
    made = build_connector(["align", {"name": "projector", "hidden": 3}, "standardise", "resize"], 4, 6, "t", sides())
    assert [link.channels for link in made.links] == [6, 6, 6, 6] and made.channels == 6
    out = made(paddle.rand([2, 4, 4, 4]), paddle.rand([2, 6, 8, 8]))
    assert out.shape == [2, 6, 8, 8]
    flat = build_connector(["align", "standardise"], 4, 4, "t", sides())(out[:, :4], None)
    np.testing.assert_allclose(flat.mean(axis=[0, 2, 3]).numpy(), 0, atol=1e-4)


def test_teacher_head_runs_the_remaining_layers_and_what_comes_before_gives_their_channels(monkeypatch):
    conv = paddle.nn.Conv2D(5, 7, 1)
    asked = []

    def remaining(skip):
        asked.append(skip)
        return RemainingLayers(conv, 5, 7)

    monkeypatch.setattr(Side, "remaining", lambda side, skip: remaining(skip))
    between = sides()
    made = build_connector(["align", {"name": "teacher_head", "skip": 3}], 4, 7, "t", between)
    x = paddle.rand([2, 4, 3, 3])
    assert (made.links[0].conv.weight.shape, made.channels, set(asked)) == ([5, 4, 1, 1], 7, {3})
    np.testing.assert_allclose(made(x, None).numpy(), conv(made.links[0].conv(x)).numpy(), rtol=1e-6)
    assert len(made.parameters()) == 2, "the teacher's layers are not its own"
    with pytest.raises(UserError, match=r"teacher_head: 4 channels come in, the teacher's layers take 5; put `align`"):
        build_connector({"name": "teacher_head"}, 4, 7, "t", between)
    with pytest.raises(UserError, match="t: connector teacher_head is for the student's side"):
        build_connector("teacher_head", 4, 7, "t", between, "teacher")


def test_a_connector_that_does_not_say_its_channels_is_refused(monkeypatch):
    class Silent(paddle.nn.Layer):
        def __init__(self, channels, target):
            super().__init__()

    monkeypatch.setitem(CONNECTORS, "silent", Silent)
    with pytest.raises(UserError, match="t: connector silent has no attribute `channels`"):
        build_connector("silent", 4, 7, "t", sides())


def test_a_connector_may_ask_for_the_sides_and_the_moment_or_for_parts_of_them_by_name(monkeypatch):
    class Whole(paddle.nn.Layer):
        def __init__(self, channels, target, sides, factor=1):
            super().__init__()
            self.channels, self.sides, self.factor = target, sides, factor

        def forward(self, x, moment):
            return x, moment.like, moment.age

    class ByName(paddle.nn.Layer):
        def __init__(self, channels, target, student_channels, batch_norm, norm=3):
            super().__init__()
            self.channels, self.given = target, (student_channels, batch_norm, norm)

        def forward(self, x, like, age):
            return x, like, age

    monkeypatch.setitem(CONNECTORS, "whole", Whole)
    monkeypatch.setitem(CONNECTORS, "by_name", ByName)
    monkeypatch.setattr(Side, "norm", "the norm")
    between = sides(4, 7)
    for side in ("student", "teacher"):
        whole = build_connector({"name": "whole", "factor": 5}, 4, 7, "t", between, side)
        named = build_connector({"name": "by_name", "norm": 6}, 4, 7, "t", between, side)
        assert whole(1, 2, 3) == named(1, 2, 3) == (1, 2, 3)
        assert whole.links[0].sides is between and whole.links[0].factor == 5
        assert named.links[0].given == (4, "the norm", 6)
    for refused in ("sides", "student_channels"):
        with pytest.raises(UserError, match=f"t: connector whole has no parameter '{refused}'.*; it has: factor"):
            build_connector({"name": "whole", refused: 1}, 4, 7, "t", between)


def test_a_loss_may_ask_for_the_sides_as_its_connectors_leave_them(monkeypatch):
    class Curious(paddle.nn.Layer):
        def __init__(self, sides, channels, student_channels, factor=1):
            super().__init__()
            self.given = sides, channels, student_channels, factor

        def forward(self, student, teacher):
            return (student - teacher).mean()

    monkeypatch.setitem(LOSSES, "curious", Curious)
    pair = ((Level("neck[0]", Tap("neck"), 4, 8),), (Level("fpn[1]", Tap("neck"), 6, 16),))
    spec = TermSpec("t", "a", "b", {"name": "curious", "factor": 2}, student_connector="align")
    between, channels, student_channels, factor = Term(spec, [pair]).loss.given
    assert (channels, student_channels, factor) == (6, 4, 2)
    seen = [(x.level.source, x.channels, x.compared, x.stride, x.norm) for x in (between.student, between.teacher)]
    assert seen == [("neck[0]", 4, 6, 8, None), ("fpn[1]", 6, 6, 16, None)]


def test_score_l2_projects_by_itself_and_looks_at_the_teachers_scores_only():
    def levels(features, classes):
        return Level("neck[0]", Tap("neck"), features, 8), Level("head.cls[0]", Tap("head"), classes, 8)

    names = ("neck[*]", "head.cls[*]")
    term = Term(TermSpec("t", names, names, {"name": "score_l2"}), [(levels(4, 3), levels(6, 5))])
    ours, theirs = [paddle.randn([2, 4, 3, 3]), None], [paddle.randn([2, 6, 3, 3]), paddle.full([2, 5, 3, 3], -50.0)]
    ours[1], theirs[1][0, 4, 1, 2] = paddle.randn([2, 3, 3, 3]), 50.0
    value = term([ours], [theirs], Context({}, None))[""]
    projected = term.loss.outer(paddle.nn.functional.relu(term.loss.inner(ours[0])))
    expected = (projected - theirs[0])[0, :, 1, 2].square().mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-4), "one position counts"
    assert term.loss.inner.weight.shape == [6, 4, 1, 1]


def test_a_value_that_a_connector_refuses_is_told():
    with pytest.raises(UserError, match=r"t: connector generate: mgd: lambda_ is 2, expected a fraction from 0 to 1"):
        build_connector({"name": "generate", "lambda_": 2}, 4, 4, "t", sides())


def test_match_size_leaves_maps_of_equal_size_alone():
    teacher = paddle.rand([1, 3, 8, 6])
    assert match_size(paddle.rand([1, 2, 8, 6]), teacher) is teacher


@pytest.mark.parametrize("ratio", [2, 4])
def test_match_size_shrinks_to_the_mean_of_all_cells_below(ratio):
    """At a ratio of 2 bilinear with half-pixel centres is the same; at 4 it would leave out three cells in four."""
    student, teacher = paddle.rand([1, 2, 4, 3]), paddle.rand([1, 3, 4 * ratio, 3 * ratio])
    resized = match_size(student, teacher)
    means = teacher.numpy().reshape(1, 3, 4, ratio, 3, ratio).mean(axis=(3, 5))
    np.testing.assert_allclose(resized.numpy(), means, rtol=1e-5)
    assert np.allclose(resized.numpy(), bilinear(teacher, [4, 3]), rtol=1e-5) == (ratio == 2)


@pytest.mark.parametrize("size", [(8, 6), (6, 5), (8, 2), (2, 6)])
def test_match_size_enlarges_bilinearly_with_half_pixel_centres(size):
    """Also where only one of the directions grows."""
    teacher = paddle.rand([1, 3, 4, 3])
    np.testing.assert_allclose(
        match_size(paddle.rand([1, 2, *size]), teacher).numpy(), bilinear(teacher, size), rtol=1e-5, atol=1e-6
    )


def bilinear(x, size):
    """Bilinear interpolation of (1, C, H, W), cell centres at halves, written out."""
    x = x.numpy()
    for axis, new in ((2, size[0]), (3, size[1])):
        old = x.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, old - 1), axis) * share
    return x


@pytest.mark.parametrize("student, teacher", [("align", "none"), ("align_standardise", "standardise")])
def test_term_trains_its_connector_and_leaves_the_teacher_alone(student, teacher):
    made = term(student_connector=student, teacher_connector=teacher)
    x, y = paddle.randn([2, 4, 8, 8]), paddle.randn([2, 6, 16, 16])
    x.stop_gradient = False
    sum(made([[x]], [[y]], batch_of(64)).values()).backward()
    names = [name for name, _ in made.named_parameters() if name.startswith("connect_student")]
    assert len(names) == (2 if student == "align" else 1), "no bias where a norm takes it out again"
    for parameter in made.connect_student.parameters():
        assert parameter.grad is not None and np.isfinite(parameter.grad.numpy()).all()
    assert np.abs(made.connect_student.parameters()[0].grad.numpy()).sum() > 0
    assert x.grad is not None and y.grad is None
    assert made.loss.conv_mask_s.weight.shape[0] == 6, "the loss has the teacher's channels"


def test_unknown_names_say_what_there_is():
    with pytest.raises(UserError, match=r"unknown connector 'aling'; nearest: align.*known: " + ", ".join(CONNECTORS)):
        term(student_connector="aling")
    with pytest.raises(UserError, match=r"unknown loss 'fdg'; nearest: fgd"):
        term(loss={"name": "fdg"}, student_connector="align")
    with pytest.raises(UserError, match=r"loss fgd has no parameter 'alhpa'; nearest: alpha"):
        term(loss={"name": "fgd", "alhpa": 1}, student_connector="align")
    with pytest.raises(UserError, match=r"loss mgd: mgd: lambda_ is 2, expected a fraction from 0 to 1"):
        term(loss={"name": "mgd", "lambda_": 2}, student_connector="align")


def test_a_loss_that_asks_for_what_no_context_has_is_refused():
    class Asks(paddle.nn.Layer):
        def forward(self, student, teacher, boxes, weather):
            pass

    with pytest.raises(UserError, match=r"Asks asks for 'weather'.*boxes, boxes_valid"):
        context_names(Asks())


def test_label_names_the_students_stride():
    assert term(student_connector="align").label == "t.s8"
    spec = TermSpec("t", "a", "b", {"name": "fgd"}, student_connector="align")
    pair = tuple((Level(name, Tap(name), channels, None),) for name, channels in (("a", 4), ("b", 6)))
    assert Term(spec, [pair]).label == "t.a"
