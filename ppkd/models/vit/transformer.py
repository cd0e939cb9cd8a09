"""The transformer from pixels to tokens."""

import paddle
from paddle import nn

from ppkd.models.vit.cubic import resized
from ppkd.models.vit.layers import Block, layer_norm, rotation
from ppkd.models.vit.variants import DINOV2


class VisionTransformer(nn.Layer):
    """DINOv2 or DINOv3.

    Args:
        variant: `variants.Variant`.
    """

    def __init__(self, variant):
        super().__init__()
        self._variant, self._rotations = variant, {}
        self.patch_embeddings = nn.Conv2D(3, variant.width, variant.patch, stride=variant.patch)
        self.cls_token = self.create_parameter([1, 1, variant.width])
        registers, width = variant.registers, variant.width
        self.register_tokens = self.create_parameter([1, registers, width]) if registers else None
        v2 = variant.family == DINOV2
        self.position_embeddings = self.create_parameter([1, 1 + variant.grid**2, width]) if v2 else None
        self.layer = nn.LayerList([Block(variant) for _ in range(variant.depth)])
        self.norm = layer_norm(variant)

    def forward(self, image):
        """The tokens behind each block.

        Args:
            image: (N, 3, H, W); what is beyond whole patches, to the right and below, is not looked at.

        Yields:
            (N, 1 + registers + patches, width), the class token first, before the last layer norm.
        """
        patches = self.patch_embeddings(image)
        n, width, rows, columns = patches.shape
        patches, cls = patches.flatten(2).transpose([0, 2, 1]), self.cls_token
        if self.position_embeddings is not None:
            cls = cls + self.position_embeddings[:, :1]
            patches = patches + self._positions(rows, columns)
        front = [cls] if self.register_tokens is None else [cls, self.register_tokens]
        x = paddle.concat([*(token.expand([n, -1, width]) for token in front), patches], axis=1)
        turned = self._rotation(rows, columns) if self.position_embeddings is None else None
        for block in self.layer:
            x = block(x, turned)
            yield x

    def _positions(self, rows, columns):
        """(1, rows * columns, width): what was learned on a grid, resized to this one."""
        grid, width = self._variant.grid, self._variant.width
        learned = self.position_embeddings[:, 1:]
        if (rows, columns) == (grid, grid):
            return learned
        # With registers it was trained with positions that were smoothed where the grid is smaller.
        smooth = bool(self._variant.registers)
        places = learned.reshape([grid, grid, width])
        return resized(places, rows, columns, smooth).reshape([1, rows * columns, width])

    def _rotation(self, rows, columns):
        if (rows, columns) not in self._rotations:
            self._rotations[rows, columns] = rotation(rows, columns, self._variant.width // self._variant.heads)
        return self._rotations[rows, columns]

