"""CSPNeXt-PAFPN, RTMDet's neck (arXiv 2212.07784, section 3.2)."""

import paddle
import paddle.nn.functional as F
from paddle import nn
from ppdet.core.workspace import register, serializable
from ppdet.modeling.shape_spec import ShapeSpec

from ppkd.models.rtmdet.layers import ConvNormAct, CSPNeXtLayer

_BLOCKS, _OUT = 3, 256


@register
@serializable
class CSPNeXtPAFPN(nn.Layer):
    """A top-down and a bottom-up path of CSPNeXt layers, then a 3x3 convolution a level, all of one width.

    Args:
        in_channels: of the backbone's three maps, from the finest on.
        strides: of these maps.
        depth_mult: factor on the number of blocks; here it may come to none.
        width_mult: factor on the output's channels.
    """

    __shared__ = ["depth_mult", "width_mult"]

    def __init__(self, in_channels=(256, 512, 1024), strides=(8, 16, 32), depth_mult=1.0, width_mult=1.0):
        super().__init__()
        fine, middle, coarse = in_channels
        blocks, out = round(_BLOCKS * depth_mult), int(_OUT * width_mult)
        self._out_shape = [ShapeSpec(channels=out, stride=stride) for stride in strides]
        self.reduce_layers = nn.LayerList([nn.Identity(), nn.Identity(), ConvNormAct(coarse, middle, 1, 1)])
        self.top_down_layers = nn.LayerList(
            [
                nn.Sequential(CSPNeXtLayer(2 * middle, middle, blocks), ConvNormAct(middle, fine, 1, 1)),
                CSPNeXtLayer(2 * fine, fine, blocks),
            ]
        )
        self.downsample_layers = nn.LayerList([ConvNormAct(n, n, 3, 2) for n in (fine, middle)])
        self.bottom_up_layers = nn.LayerList(
            [CSPNeXtLayer(2 * fine, middle, blocks), CSPNeXtLayer(2 * middle, coarse, blocks)]
        )
        self.out_layers = nn.LayerList([ConvNormAct(n, out, 3, 1) for n in in_channels])

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {"in_channels": [x.channels for x in input_shape], "strides": [x.stride for x in input_shape]}

    def forward(self, features):
        """Three maps (N, C, H, W) from the backbone's, from the finest on."""
        fine, middle, coarse = features
        top = self.reduce_layers[2](coarse)
        between = self.top_down_layers[0](_beside(_twice(top), middle))
        first = self.top_down_layers[1](_beside(_twice(between), fine))
        second = self.bottom_up_layers[0](_beside(self.downsample_layers[0](first), between))
        third = self.bottom_up_layers[1](_beside(self.downsample_layers[1](second), top))
        return [layer(x) for layer, x in zip(self.out_layers, (first, second, third))]

    @property
    def out_shape(self):
        return self._out_shape


def _twice(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _beside(resized, lateral):
    return paddle.concat([resized, lateral], axis=1)
