"""The sizes in which DINOv2 and DINOv3 are published, and which of them a file of weights is."""

from dataclasses import dataclass, fields, replace

from ppkd.errors import UserError, nearest

DINOV2, DINOV3 = "dinov2", "dinov3"


@dataclass(frozen=True)
class Variant:
    """A vision transformer's family and size.

    Attributes:
        family: ``dinov2`` (positions learned on a grid) or ``dinov3`` (rotary positions).
        width, depth, heads: channels of a token, blocks, attention heads.
        patch: side of a patch in pixels.
        registers: tokens that belong to no patch, beside the class token (Darcet et al., "Vision Transformers Need
            Registers", ICLR 2024).
        gated: whether the MLP is SwiGLU's.
        hidden: channels inside of the MLP.
        grid: side of the grid of positions that DINOv2 learned.
    """

    family: str = DINOV2
    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 14
    registers: int = 0
    gated: bool = False
    hidden: int = 1536
    grid: int = 37

    @property
    def name(self):
        """The published name, or None for a size that is not published."""
        return next((name for name, variant in VARIANTS.items() if variant == self), None)

    def __str__(self):
        registers = f"{self.registers or 'no'} registers"
        gated = ", gated" if self.gated else ""
        return self.name or (
            f"{self.family} of width {self.width}, depth {self.depth}, {self.heads} heads, patch {self.patch}, "
            f"{registers}{gated}"
        )


_V2 = {
    "s": Variant(),
    "b": Variant(width=768, heads=12, hidden=3072),
    "l": Variant(width=1024, depth=24, heads=16, hidden=4096),
    "g": Variant(width=1536, depth=40, heads=24, gated=True, hidden=4096),
}
_V3 = Variant(DINOV3, patch=16, registers=4, grid=0)
VARIANTS = {
    **{f"dinov2-vit{size}14": variant for size, variant in _V2.items()},
    **{f"dinov2-vit{size}14-reg": replace(variant, registers=4) for size, variant in _V2.items()},
    "dinov3-vits16": _V3,
    "dinov3-vits16plus": replace(_V3, gated=True),
    "dinov3-vitb16": replace(_V3, width=768, heads=12, hidden=3072),
    "dinov3-vitl16": replace(_V3, width=1024, depth=24, heads=16, hidden=4096),
    "dinov3-vith16plus": replace(_V3, width=1280, depth=32, heads=20, gated=True, hidden=5120),
}


def variant_of(given, where):
    """The `Variant` that a file names, or describes by its fields.

    Args:
        given: a name of `VARIANTS`, or a mapping of fields, those left out being DINOv2's S.
        where: file and key, for messages.

    Raises:
        UserError: no such name, or fields that make no transformer.
    """
    if isinstance(given, str):
        if given not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise UserError(f"{where}: no vision transformer {given!r}{nearest(given, VARIANTS)}; known: {known}")
        return VARIANTS[given]
    if not isinstance(given, dict):
        raise UserError(f"{where}: a name such as dinov3-vitb16 or a mapping of sizes was expected, found {given!r}")
    kinds = {field.name: field.type for field in fields(Variant)}
    for key, value in given.items():
        if key not in kinds:
            raise UserError(f"{where}: a vision transformer has no {key!r}{nearest(str(key), kinds)}")
        right = {"family": value in (DINOV2, DINOV3), "gated": isinstance(value, bool)}.get(
            key, isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 16
        )
        if not right:
            raise UserError(f"{where}.{key}: {value!r} is none")
    found = Variant(**given)
    if found.family == DINOV3:
        found = replace(found, grid=0)
    whole = min(found.width, found.depth, found.heads, found.patch, found.hidden) > 0 and found.width % found.heads == 0
    if not whole or (found.family == DINOV3 and (found.width // found.heads) % 4):
        raise UserError(f"{where}: width, depth, heads, patch and hidden have to be above 0, width a multiple of heads "
                        "(with dinov3 of 4 * heads)")
    return found


def variant_in(shapes):
    """The `Variant` of a file of weights under Hugging Face's names; None if it is none of these.

    Args:
        shapes: name -> shape.

    The number of heads stands in no tensor: it is the published one of this width, or one a 64 channels.
    """
    family, layer = (DINOV3, "layer.{}.attention.q_proj.weight") if "layer.0.attention.q_proj.weight" in shapes else (
        DINOV2, "encoder.layer.{}.attention.attention.query.weight",
    )
    if layer.format(0) not in shapes:
        return None

    def side(name, axis):  # 0 of a tensor of other axes, which no variant has
        shape = shapes.get(name, ())
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    depth = next(i for i in range(len(shapes) + 1) if layer.format(i) not in shapes)
    width = side(layer.format(0), 0)
    conv = "embeddings.patch_embeddings." + ("weight" if family == DINOV3 else "projection.weight")
    registers = side("embeddings.register_tokens", 1)
    begin = "layer.0.mlp." if family == DINOV3 else "encoder.layer.0.mlp."
    gated = f"{begin}gate_proj.weight" in shapes or f"{begin}weights_in.weight" in shapes
    inner = next((side(begin + name, 1) for name in ("down_proj.weight", "fc2.weight", "weights_out.weight")
                  if begin + name in shapes), 0)
    positions = max(side("embeddings.position_embeddings", 1) - 1, 0)
    heads = next((v.heads for v in VARIANTS.values() if v.width == width), max(width // 64, 1))
    grid = 0 if family == DINOV3 else int(round(positions**0.5))
    return Variant(family, width, depth, heads, side(conv, -1), registers, gated, inner, grid)


def nearest_variant(variant):
    """Name of the published `Variant` that agrees with one in most fields, of several of the nearest width."""
    def far(name):
        other = VARIANTS[name]
        differing = sum(getattr(variant, field.name) != getattr(other, field.name) for field in fields(Variant))
        return differing, abs(variant.width - other.width)

    return min(VARIANTS, key=far)
