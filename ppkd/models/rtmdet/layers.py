"""The layers of CSPNeXt (arXiv 2212.07784, section 3.2): large depthwise kernels, and attention over channels."""

import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.modeling.backbones.csp_darknet import BaseConv, DWConv

# A convolution without bias, batch norm, SiLU: ppdet's, with `conv` and `bn` in it.
ConvNormAct = BaseConv


class CSPNeXtBlock(nn.Layer):
    """A 3x3 convolution, then a depthwise 5x5 and a pointwise one; `add` adds the input.

    Args:
        channels: of input and output, (N, channels, H, W).
        add: whether the input is added to the output, after the last activation.
    """

    def __init__(self, channels, add):
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3, 1)
        self.conv2 = DWConv(channels, channels, 5)
        self._add = add

    def forward(self, x):
        out = self.conv2(self.conv1(x))
        return out + x if self._add else out


class ChannelAttention(nn.Layer):
    """Multiplies each channel by a gate, which one linear layer makes of the channels' means.

    Args:
        channels: of input and output, (N, channels, H, W).
    """

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1)

    def forward(self, x):
        # The mean of a large map leaves half precision's range.
        mean = F.adaptive_avg_pool2d(x.astype("float32"), 1).astype(x.dtype)
        return x * F.hardsigmoid(self.fc(mean))


class CSPNeXtLayer(nn.Layer):
    """Half of the channels go through the blocks, half past them; attention, then a 1x1 convolution of both.

    Args:
        inputs, outputs: channels.
        blocks: number of blocks; may be 0.
        add: whether the blocks add their input.
        attention: whether there is a `ChannelAttention`.
    """

    def __init__(self, inputs, outputs, blocks, add=False, attention=False):
        super().__init__()
        middle = int(outputs * 0.5)
        self.main_conv = ConvNormAct(inputs, middle, 1, 1)
        self.short_conv = ConvNormAct(inputs, middle, 1, 1)
        self.blocks = nn.Sequential(*[CSPNeXtBlock(middle, add) for _ in range(blocks)])
        self.attention = ChannelAttention(2 * middle) if attention else None
        self.final_conv = ConvNormAct(2 * middle, outputs, 1, 1)

    def forward(self, x):
        both = paddle.concat([self.blocks(self.main_conv(x)), self.short_conv(x)], axis=1)
        return self.final_conv(both if self.attention is None else self.attention(both))
