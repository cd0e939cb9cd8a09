"""What ranks exchange of a step's gradients, without any second process: what the other one sent is added here."""

import paddle
import pytest
from paddle import distributed as dist
from paddle import nn

from ppkd.bridge.bad_images import STAND_IN
from ppkd.engine import parallel
from ppkd.engine.parallel import Synchronised, distribute, exchange
from tests.engine.test_synchronisation import waits


class Pair(nn.Layer):
    """Two branches of one parameter each, of which a batch names those that its loss reaches."""

    def __init__(self, dtype="float32"):
        super().__init__()
        begin = nn.initializer.Constant(2.0)
        for name in ("one", "two"):
            self.add_parameter(name, self.create_parameter([3], dtype=dtype, default_initializer=begin))
        self.off = []

    def idle(self):
        return self.off

    def forward(self, batch):
        factors = {name: factor for name, factor in batch.items() if name != STAND_IN}
        return {"loss": sum((getattr(self, name).astype("float32") * x).sum() for name, x in factors.items())}


@pytest.fixture
def ranks(monkeypatch):
    """Function from the batches of each rank, step by step, to the models of both after their exchanges."""
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    monkeypatch.setattr(parallel, "sync_params_buffers", lambda *_, **__: None)

    def run(*batches, make=Pair, prepare=lambda model: None):
        def train(own, reduce):
            monkeypatch.setattr(dist, "all_reduce", reduce)
            model = distribute(make())
            prepare(model.model)
            for batch in own:
                model(batch)["loss"].backward()
                exchange(model)
            return model.model

        def with_what(other):
            sent = iter(other)
            return lambda tensor: paddle.assign(tensor + next(sent), tensor)

        sent = [[], []]
        for own, kept in zip(batches, sent):
            train(own, lambda tensor, kept=kept: kept.append(tensor.clone()))
        return [train(own, with_what(other)) for own, other in zip(batches, reversed(sent))]

    return run


def gradients(model):
    return [None if p.grad is None else p.grad.astype("float32").tolist() for p in (model.one, model.two)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_one_rank_reaches_gets_a_gradient_on_both(dtype, ranks):
    for model in ranks([{"one": 3.0, "two": 8.0}], [{"one": 5.0}], make=lambda: Pair(dtype)):
        assert gradients(model) == [[4.0] * 3, [4.0] * 3]
        assert model.two.grad.dtype == model.two.dtype


def test_what_no_rank_reaches_gets_none_and_stands_still(ranks):
    for model in ranks([{"one": 3.0}], [{"one": 5.0}]):
        assert gradients(model) == [[4.0] * 3, None]
        optimizer = paddle.optimizer.Momentum(1.0, parameters=model.parameters(), weight_decay=0.5)
        optimizer.step()
        assert model.two.tolist() == [2.0] * 3 and model.one.tolist() != [2.0] * 3


def test_what_is_reached_later_gets_its_gradient_then(ranks):
    first, second = {"one": 2.0}, {"one": 2.0, "two": 6.0}
    for model in ranks([first, first], [first, second]):
        assert model.two.grad.tolist() == [3.0] * 3


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_on_one_rank_shows_in_every_gradient_of_both(wrong, ranks):
    for model in ranks([{"one": 1.0, "two": 1.0}], [{"one": 1.0, "two": wrong}]):
        assert not any(paddle.isfinite(p.grad).any() for p in model.parameters())


def test_a_stand_ins_loss_counts_nothing(ranks):
    for model in ranks([{"one": 4.0, "two": 4.0}], [{"one": 1.0, "two": 1.0, STAND_IN: True}]):
        assert gradients(model) == [[2.0] * 3, [2.0] * 3]


def test_the_host_waits_only_where_a_first_gradient_may_have_come_elsewhere(ranks):
    def waited(own, other, prepare=lambda model: None):
        with waits() as found:
            ranks(own, other, prepare=prepare)
        # A first exchange tells the others which parameters have a gradient: a copy to the device, once in each run.
        assert sum(number for (name, *_), number in found.items() if name == "to_tensor") == 4
        return sorted({name for name, *_ in found} - {"to_tensor"})

    both, one = {"one": 1.0, "two": 1.0}, {"one": 1.0}
    assert waited([both, both], [both, both]) == []
    assert waited([one], [one], lambda model: model.off.append(model.two)) == []
    assert waited([one], [both]) == ["tolist"]


def test_alone_there_is_nobody_to_exchange_with():
    model = Pair()
    assert distribute(model) is model and not isinstance(model, Synchronised)
    model({"one": 3.0})["loss"].backward()
    exchange(model)
    assert gradients(model) == [[3.0] * 3, None]
