"""A vision transformer as ppdet builds it, with its tokens as maps."""

from paddle import nn
from ppdet.core.workspace import register

from ppkd.errors import UserError
from ppkd.models.vit.transformer import VisionTransformer
from ppkd.models.vit.variants import DINOV3, variant_of
from ppkd.models.vit.weights import of_hugging_face

_LICENCE = (
    "DINOv3's weights are given out under Meta's DINOv3 licence, which goes for what is made with them as well: "
    "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"
)


@register
class ViTTeacher(nn.Layer):
    """DINOv2 or DINOv3 as a teacher; it detects nothing.

    Attributes:
        backbone: the transformer.
        notice: what those have to be told who give weights to it, or None.
        map0, map1, ...: hand on each block's patch tokens as a map (N, width, rows, columns), behind the last layer
            norm, when that is recorded. The last of them is what the model gives.
        summary: hands on the class token behind the last layer norm, (N, width, 1, 1).

    Args:
        variant: a name of `variants.VARIANTS`, or a mapping of sizes.
    """

    def __init__(self, variant):
        super().__init__()
        self.variant = variant_of(variant, "vit")
        self.backbone = VisionTransformer(self.variant)
        self.notice = _LICENCE if self.variant.family == DINOV3 else None
        for i in range(self.variant.depth):
            self.add_sublayer(f"map{i}", nn.Identity())
        self.summary = nn.Identity()

    def forward(self, batch, wanted=None):
        """Run the transformer as far as is wanted.

        Args:
            batch: with ``image`` (N, 3, H, W), normalised as ImageNet's.
            wanted: names of the layers above whose output is recorded; None for all.

        Returns:
            The last map.
        """
        image, patch = batch["image"], self.variant.patch
        size = [side // patch for side in image.shape[2:]]
        last = self.variant.depth - 1
        names = {f"map{i}" for i in range(last + 1)} | {"summary"} if wanted is None else wanted
        numbers = [last if name == "summary" else int(name[3:]) for name in names if name != "backbone"]
        end, found = max(numbers, default=last), None
        for i, tokens in enumerate(self.backbone(image)):
            if i == end or f"map{i}" in names:
                found = self._hand_on(i, tokens, size, names)
            if i == end:
                return found
        return found

    def _hand_on(self, i, tokens, size, names):
        tokens = self.backbone.norm(tokens)
        if i == self.variant.depth - 1 and "summary" in names:
            self.summary(tokens[:, 0].unsqueeze([2, 3]))
        if f"map{i}" not in names:
            return None
        patches = tokens[:, 1 + self.variant.registers :]
        shape = [patches.shape[0], self.variant.width, *size]
        return getattr(self, f"map{i}")(patches.transpose([0, 2, 1]).reshape(shape))

    def own_names(self, state):
        """A file's tensors under this model's names, or as they are if they have other names than Hugging Face's.

        Raises:
            UserError: they are another variant's, or have names of somebody else's.
        """
        found = of_hugging_face(state, self.variant)
        if found is not None:
            return {f"backbone.{name}": value for name, value in found.items()}
        if not state.keys() & self.state_dict().keys():
            raise UserError(
                f"its tensors ({', '.join(list(state)[:3])}, ...) are under other names than Hugging Face's: "
                "model.safetensors of a repository there is what is read"
            )
        return state
