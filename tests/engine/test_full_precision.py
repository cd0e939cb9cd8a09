"""Losses, their weights and their sums are in float32 whatever a step is in, also where a loss says nothing of it."""

import paddle
import pytest
from paddle import nn

from ppkd.build import build_model
from ppkd.detectors import Level, Tap
from ppkd.detectors.context import Clock, Context
from ppkd.engine.terms import Term
from ppkd.losses import LOSSES
from ppkd.recipe.plan import TermSpec
from tests.helpers_precision import in_float16
from tests.helpers_training import QUICK

# What stands between a loss's formula and the sum that is minimised.
OPERATORS = ("__mul__", "__rmul__", "__add__", "__radd__", "__truediv__", "sum", "mean")


class Plain(nn.Layer):
    """As somebody's plugin: it knows nothing of precision."""

    def forward(self, student, teacher):
        return {"twice": (student - teacher).square().sum() * 2.0, "once": (student - teacher).sum() * 1.0}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "loss",
    [
        {"name": "mgd", "alpha": 3.0}, {"name": "partial_l2", "factors": {8: 5.0}}, {"name": "plain"},
        {"name": "cwd"}, {"name": "pkd"}, {"name": "l2", "normalize": False},
    ],
    ids=lambda loss: loss["name"],
)  # fmt: skip
def test_what_is_behind_a_loss_neither_overflows_nor_rounds(loss, dtype, monkeypatch):
    monkeypatch.setitem(LOSSES, "plain", Plain)
    level = Level("neck[0]", Tap("neck"), 4, 8)
    term = Term(TermSpec("t", "neck", "neck", loss), [((level,), (level,))])
    maps = [(paddle.rand([2, 4, 16, 16]) * 60).astype(dtype) for _ in range(2)]
    wide = [x.astype("float32") for x in maps]
    paddle.seed(1)
    expected = term([[wide[0]]], [[wide[1]]], Context({}))
    paddle.seed(1)
    with in_float16(*OPERATORS):
        found = term([[maps[0]]], [[maps[1]]], Context({}))
    assert {name: float(x) for name, x in found.items()} == {name: float(x) for name, x in expected.items()}
    assert all(x.dtype == paddle.float32 for x in found.values())


def test_weights_magnitudes_and_the_sum_are_in_float32(recipe):
    model = build_model(recipe(QUICK, "maps", overrides=["distill.alpha=1.0"]))
    values = {term.label: {"": paddle.full([], 30001.0 + i)} for i, term in enumerate(model.terms)}
    compared = [(term, 4.0, values[term.label]) for term in model.terms]
    before = {key: x.clone() for key, x in model.distillation.state_dict().items()}
    model.alpha = 3.0
    for own in ("float32", "float16", "bfloat16"):
        results = []
        for operators in ((), OPERATORS):
            model.distillation.set_state_dict(before)
            with in_float16(*operators):
                losses = {"loss": paddle.full([], 2049.0).astype(own)}
                results.append(model._added(losses, list(compared), list(compared), {}, None, Clock()))
        first, second = ({name: float(x) for name, x in found.items()} for found in results)
        assert first == second and first["loss"] > 65504
        assert all(x.dtype == paddle.float32 for x in results[1].values())
        alone = float(paddle.full([], 2049.0).astype(own))
        assert first["loss"] == pytest.approx(3 * (alone + sum(v for k, v in first.items() if k != "loss")), rel=1e-6)
