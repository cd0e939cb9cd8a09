"""The average of weights is ppdet's to the bit, however many tensors are averaged at once."""

import paddle
import pytest
from paddle import nn

from ppkd.bridge.workspace import import_ppdet
from ppkd.training.averaging import Averaging
from ppkd.training.precision import Precision

WHOLE = Precision({}, False)


def layer(numbers=False):
    paddle.seed(3)
    made = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.Linear(4, 2), nn.Conv2D(2, 2, 1))
    if numbers:  # ppdet makes floats of them
        made.register_buffer("table", paddle.arange(5))
    made.register_buffer("factor", paddle.to_tensor([0.5], dtype="float64"))
    return made


def move(made, step):
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            paddle.assign((tensor * 0.9 + 0.01 * step + 0.1).astype(tensor.dtype), tensor)


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and tensor.shape == theirs[name].shape
        assert (tensor.numpy() == theirs[name].numpy()).all(), name


@pytest.mark.parametrize("kind", ["threshold", "normal", "exponential"])
def test_the_average_is_ppdets_to_the_bit(kind):
    import_ppdet()
    from ppdet.optimizer import ModelEMA

    made = layer(numbers=True)
    ours = Averaging(made, {"use_ema": True, "ema_decay_type": kind, "ema_black_list": ["2.weight"]}, WHOLE)
    theirs = ModelEMA(made, decay=0.9998, ema_decay_type=kind, ema_black_list=["2.weight"])
    for step in range(4):
        move(made, step)
        ours.update()
        theirs.update()
        if step == 1:  # also where it has begun anew
            ours.ema.reset()
            theirs.reset()
    expected = {name: x for name, x in theirs.state_dict.items() if name != "2.weight"}
    same(ours.ema.state_dict, expected)


@pytest.mark.parametrize("kind", ["threshold", "exponential"])
def test_what_leaves_the_average_is_no_part_of_a_larger_tensor(kind):
    """Of a part NumPy is given the whole by Paddle, once for each: checkpoints of 30 MB took 14 GB and a minute."""
    made = layer()
    ours = Averaging(made, {"use_ema": True, "ema_decay_type": kind}, WHOLE)
    move(made, 0)
    ours.update()
    inside = [x.data_ptr() for x in ours.ema.state_dict.values()]
    saved, applied = ours.state()["tensors"], ours._average(counts=False)
    same(saved, ours.ema.state_dict)
    for left in (saved, applied):
        assert not {x.data_ptr() for x in left.values()} & set(inside)


def test_an_average_that_was_restored_goes_on():
    made = layer()
    whole, first, second = (Averaging(made, {"use_ema": True}, WHOLE) for _ in range(3))
    for step in range(3):
        move(made, step)
        whole.update()
        (first if step < 2 else second).update()
        if step == 1:
            state = first.state()
            second.restore({**state, "tensors": {name: x.clone() for name, x in state["tensors"].items()}})
    same(second.ema.state_dict, whole.ema.state_dict)
