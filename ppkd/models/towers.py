"""Layers that several of the models have in their heads."""

from paddle import ParamAttr, nn
from paddle.nn.initializer import Constant, Normal


class ConvNormRelu(nn.Layer):
    """A 3x3 convolution of stride 1, group norm and ReLU; without groups the convolution has a bias instead.

    Args:
        inputs, outputs: channels.
        groups: of the norm; 0 for none.
    """

    def __init__(self, inputs, outputs, groups=0):
        super().__init__()
        self.conv = conv(inputs, outputs, 3, bias=False if groups else 0.0)
        self.gn = nn.GroupNorm(groups, outputs) if groups else None
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.conv(x)
        return self.relu(x if self.gn is None else self.gn(x))


def tower(inputs, channels, depth, groups=0):
    """A list of `depth` `ConvNormRelu`."""
    return nn.LayerList([ConvNormRelu(inputs if k == 0 else channels, channels, groups) for k in range(depth)])


def conv(inputs, outputs, kernel, bias=0.0):
    """A convolution that keeps the size, drawn from N(0, 0.01).

    Args:
        inputs, outputs, kernel: channels and side.
        bias: what the bias begins with; False for none.
    """
    return nn.Conv2D(
        inputs, outputs, kernel, padding=kernel // 2, weight_attr=ParamAttr(initializer=Normal(0.0, 0.01)),
        bias_attr=False if bias is False else ParamAttr(initializer=Constant(float(bias))),
    )  # fmt: skip
