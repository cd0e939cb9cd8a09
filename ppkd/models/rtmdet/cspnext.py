"""CSPNeXt, RTMDet's backbone (arXiv 2212.07784, section 3.2)."""

from paddle import nn
from ppdet.core.workspace import register, serializable
from ppdet.modeling.backbones.csp_darknet import SPPFLayer
from ppdet.modeling.shape_spec import ShapeSpec

from ppkd.models.rtmdet.layers import ConvNormAct, CSPNeXtLayer

# Channels and blocks of the four stages at width and depth 1, and whether their blocks add the input.
_STAGES = ((128, 3, True), (256, 6, True), (512, 6, True), (1024, 3, False))


@register
@serializable
class CSPNeXt(nn.Layer):
    """A stem of three convolutions and four stages, of strides 4, 8, 16 and 32; the last one begins with SPPF.

    Args:
        depth_mult: factor on the number of blocks; at least one block a stage.
        width_mult: factor on the channels.
        return_idx: stages whose maps are returned, from 0 on.
    """

    __shared__ = ["depth_mult", "width_mult"]

    def __init__(self, depth_mult=1.0, width_mult=1.0, return_idx=(1, 2, 3)):
        super().__init__()
        half, channels = int(64 * width_mult // 2), int(64 * width_mult)
        self.stem = nn.Sequential(
            ConvNormAct(3, half, 3, 2), ConvNormAct(half, half, 3, 1), ConvNormAct(half, channels, 3, 1)
        )
        self._return_idx, self._out_channels = tuple(return_idx), []
        for i, (base, blocks, add) in enumerate(_STAGES):
            inputs, channels = channels, int(base * width_mult)
            layers = [ConvNormAct(inputs, channels, 3, 2)]
            if i == len(_STAGES) - 1:
                layers.append(SPPFLayer(channels, channels))
            layers.append(CSPNeXtLayer(channels, channels, max(round(blocks * depth_mult), 1), add, attention=True))
            self.add_sublayer(f"stage{i + 1}", nn.Sequential(*layers))
            self._out_channels.append(channels)

    def forward(self, inputs):
        """The stages' maps, from the finest on, of ppdet's batch `inputs` with ``image`` (N, 3, H, W)."""
        x, outputs = self.stem(inputs["image"]), []
        for i in range(len(_STAGES)):
            x = getattr(self, f"stage{i + 1}")(x)
            if i in self._return_idx:
                outputs.append(x)
        return outputs

    @property
    def out_shape(self):
        return [ShapeSpec(channels=self._out_channels[i], stride=4 * 2**i) for i in self._return_idx]
