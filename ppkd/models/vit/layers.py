"""The blocks of DINOv2 (Oquab et al., arXiv 2304.07193) and DINOv3 (Siméoni et al., arXiv 2508.10104).

Parameters have the names that Hugging Face gives them, so that a file of weights says where each belongs.
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppkd.models.vit.variants import DINOV3


class Attention(nn.Layer):
    """Attention of all tokens to all, with rotary positions where there are any.

    Args:
        variant: `variants.Variant`.
    """

    def __init__(self, variant):
        super().__init__()
        width, self._heads = variant.width, variant.heads
        self.q_proj = nn.Linear(width, width)
        # DINOv3's keys have no bias: softmax would not see it.
        self.k_proj = nn.Linear(width, width, bias_attr=False if variant.family == DINOV3 else None)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x, rotation=None):
        """(N, T, width) to the same; `rotation` as `rotation` of this module gives it."""
        n, count, width = x.shape
        parts = (layer(x).reshape([n, count, self._heads, -1]).transpose([0, 2, 1, 3]) for layer in self._projections())
        query, key, value = parts
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        weights = F.softmax(paddle.matmul(query, key, transpose_y=True) * (width // self._heads) ** -0.5, axis=-1)
        return self.o_proj(paddle.matmul(weights, value).transpose([0, 2, 1, 3]).reshape([n, count, width]))

    def _projections(self):
        return self.q_proj, self.k_proj, self.v_proj


class Mlp(nn.Layer):
    """``down(gelu(up(x)))``, or gated ``down(silu(gate(x)) * up(x))`` (Shazeer, arXiv 2002.05202)."""

    def __init__(self, variant):
        super().__init__()
        self.gate_proj = nn.Linear(variant.width, variant.hidden) if variant.gated else None
        self.up_proj = nn.Linear(variant.width, variant.hidden)
        self.down_proj = nn.Linear(variant.hidden, variant.width)

    def forward(self, x):
        up = self.up_proj(x)
        return self.down_proj(F.gelu(up) if self.gate_proj is None else F.silu(self.gate_proj(x)) * up)


class Scale(nn.Layer):
    """A factor a channel (LayerScale, Touvron et al., ICCV 2021)."""

    def __init__(self, width):
        super().__init__()
        self.lambda1 = self.create_parameter([width], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x):
        return x * self.lambda1


class Block(nn.Layer):
    """Attention and MLP, each behind a layer norm, scaled and added."""

    def __init__(self, variant):
        super().__init__()
        self.norm1, self.norm2 = layer_norm(variant), layer_norm(variant)
        self.attention, self.mlp = Attention(variant), Mlp(variant)
        self.layer_scale1, self.layer_scale2 = Scale(variant.width), Scale(variant.width)

    def forward(self, x, rotation):
        x = x + self.layer_scale1(self.attention(self.norm1(x), rotation))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


def layer_norm(variant):
    """The family's layer norm."""
    return nn.LayerNorm(variant.width, epsilon=1e-5 if variant.family == DINOV3 else 1e-6)


def rotation(rows, columns, channels, base=100.0):
    """Cosines and sines of DINOv3's rotary positions: half of a head's pairs turn with the row, half with the column.

    Args:
        rows, columns: of patches; their centres lie between -1 and 1 in either direction.
        channels: of a head, a multiple of 4.
        base: of the wavelengths.

    Returns:
        Two (rows * columns, channels) tensors.
    """
    centres = [(paddle.arange(count, dtype="float32") + 0.5) / count * 2 - 1 for count in (rows, columns)]
    periods = base ** (paddle.arange(channels // 4, dtype="float32") * (4 / channels))
    y, x = (2 * math.pi * centre.unsqueeze(1) / periods for centre in centres)
    angles = paddle.concat(
        [y.unsqueeze(1).tile([1, columns, 1]), x.unsqueeze(0).tile([rows, 1, 1])], axis=2
    ).reshape([rows * columns, channels // 2]).tile([1, 2])  # fmt: skip
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Turn the last tokens of (N, heads, T, C), as many as there are angles; those before them have no place."""
    before, patches = x[:, :, : x.shape[2] - cos.shape[0]], x[:, :, x.shape[2] - cos.shape[0] :]
    first, second = patches.chunk(2, axis=-1)
    return paddle.concat([before, patches * cos + paddle.concat([-second, first], axis=-1) * sin], axis=2)
