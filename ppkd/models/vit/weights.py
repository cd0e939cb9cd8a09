"""Weights under Hugging Face's names become this model's."""

import re

import numpy as np

from ppkd.errors import UserError
from ppkd.models.vit.variants import DINOV2, nearest_variant, variant_in

# DINOv2's names -> DINOv3's, which are this model's.
_RENAMED = (
    (r"^encoder\.layer\.", "layer."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.fc1\.", ".mlp.up_proj."),
    (r"\.mlp\.(fc2|weights_out)\.", ".mlp.down_proj."),
    (r"^layernorm\.", "norm."),
    (r"patch_embeddings\.projection\.", "patch_embeddings."),
    (r"^embeddings\.", ""),
)
# Published beside what is used here: the token of masked patches.
_UNUSED = ("mask_token",)


def of_hugging_face(state, variant):
    """What a file under Hugging Face's names has for a `transformer.VisionTransformer`; None if it has other names.

    Args:
        state: name -> array, linear layers as (out, in).
        variant: the `variants.Variant` that is wanted.

    Returns:
        Name in the model -> float32 array, linear layers as (in, out).

    Raises:
        UserError: it is another variant, with the name of what it is.
    """
    state = {re.sub(r"^(model|backbone|dinov2\w*|dinov3\w*)\.", "", name): value for name, value in state.items()}
    found = variant_in({name: list(value.shape) for name, value in state.items()})
    if found is None:
        return None
    _check(found, variant)
    renamed = {}
    for name, value in state.items():
        if found.family == DINOV2:
            for pattern, into in _RENAMED:
                name = re.sub(pattern, into, name)
        name = re.sub(r"^embeddings\.", "", name)
        if name in _UNUSED:
            continue
        value = np.asarray(value, "float32")
        renamed[name] = value.T if value.ndim == 2 else value
    return _parted(renamed)


def _parted(renamed):
    """DINOv2's gated layers have gate and way up in one matrix, the gate first."""
    found = {}
    for name, value in renamed.items():
        if ".mlp.weights_in." in name:
            if value.shape[-1] % 2:
                raise UserError(f"{name} is of shape {list(value.shape)}: gate and way up are two halves of one size")
            for part, half in zip(("gate_proj", "up_proj"), np.split(value, 2, axis=-1)):
                found[name.replace("weights_in", part)] = half
        else:
            found[name] = value
    return found


def _check(found, wanted):
    if found == wanted:
        return
    # Heads stand in no tensor, and of a size that is not published nobody knows them.
    for field in ("family", "width", "depth", "patch", "registers", "gated", "hidden", "grid"):
        ours, theirs = getattr(wanted, field), getattr(found, field)
        if ours != theirs:
            name = found.name
            advice = f"; write vit: {name}" if name else f"; of the published {nearest_variant(found)} is nearest to it"
            told = f"the file is {found}: {field} {theirs}, but the teacher is {wanted}: {field} {ours}"
            raise UserError(told + advice)
