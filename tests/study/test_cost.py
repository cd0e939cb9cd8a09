"""What a detector costs, against counting by hand."""

import paddle
import pytest
from paddle import nn

from ppkd.study.cost import gflops, milliseconds, parameters


class Net(nn.Layer):
    """A small net that takes ppdet's batch: a strided, a grouped and a twice-called convolution, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2D(3, 8, 3, stride=2, padding=1)  # 8 x H/2 x W/2
        self.norm = nn.BatchNorm2D(8)
        self.grouped = nn.Conv2D(8, 16, 3, padding=1, groups=4, bias_attr=False)  # 16 x H/2 x W/2
        self.shared = nn.Conv2D(16, 16, 1)
        self.linear = nn.Linear(16, 5)
        self.fixed = nn.Linear(2, 2)
        for parameter in self.fixed.parameters():
            parameter.stop_gradient = True

    def forward(self, batch):
        x = self.grouped(self.norm(self.first(batch["image"])))
        x = self.shared(self.shared(x))
        self.seen = (self.training, paddle.is_grad_enabled(), x.shape)
        return {"bbox_num": self.linear(x.mean(axis=[2, 3]))}


def test_parameters_counts_what_is_trained():
    convolutions = (8 * 3 * 9 + 8) + 16 * 2 * 9 + (16 * 16 + 16)
    assert parameters(Net()) == convolutions + 2 * 8 + (16 * 5 + 5)


@pytest.mark.parametrize("height, width", [(32, 64), (8, 8)])
def test_gflops_counts_two_operations_a_multiply_add(height, width):
    cells = (height // 2) * (width // 2)
    multiply_adds = cells * 8 * (3 * 9) + cells * 16 * (2 * 9) + 2 * cells * 16 * 16 + 16 * 5
    assert gflops(Net(), (height, width)) == pytest.approx(2 * multiply_adds / 1e9, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training):
    model = Net()
    model.train() if training else model.eval()
    running = model.norm._mean.numpy().copy()
    gflops(model, (8, 16))
    assert model.seen == (False, False, [1, 16, 4, 8]), "in eval mode, without gradients, at the size asked for"
    assert set(milliseconds({"net": model}, (8, 8), repeats=1)) == {"net"}
    assert model.training is training and model.first.training is training
    assert paddle.is_grad_enabled()
    assert (model.norm._mean.numpy() == running).all()
    assert not model.first._forward_post_hooks, "the recorder's hooks are gone"


def test_milliseconds_are_the_median_of_each_model():
    class Sleepy(Net):
        def forward(self, batch):
            import time

            time.sleep(0.02)
            return super().forward(batch)

    times = milliseconds({"quick": Net(), "slow": Sleepy()}, (8, 8), repeats=3)
    assert times["slow"] > 20 > times["quick"] > 0
