"""A RetinaNet of ppdet as MMDetection would have saved it."""

import re

import numpy as np

from ppkd.files.resnet_names import blocks_of
from tests.helpers_torch import tensor

_LAST = {"_mean": "running_mean", "_variance": "running_var"}


def of_mmdet(model):
    """MMDetection's name -> array, of random numbers, and ppdet's name -> array with the same.

    Args:
        model: a RetinaNet on a plain ResNet.
    """
    random = np.random.RandomState(0)
    blocks = {name: (stage, i) for stage, names in blocks_of(model.backbone).items() for i, name in enumerate(names)}
    own = {name: random.rand(*value.shape).astype("f4") for name, value in model.state_dict().items()}
    ratios = len(model.head.anchor_generator.aspect_ratios)
    return {_name(name, blocks, own): _array(name, array, ratios, own) for name, array in own.items()}, own


def saved(state, name="retinanet_r50_fpn_1x_coco", **meta):
    """What MMDetection would save of it."""
    meta = {"mmdet_version": "2.3.0", "exp_name": f"{name}.py", **meta}
    return {"meta": meta, "state_dict": {name: tensor(array) for name, array in state.items()}}


def _name(name, blocks, own):
    part, _, rest = name.partition(".")
    stem, _, last = rest.rpartition(".")
    last = _LAST.get(last, last)
    if part == "head":
        return re.sub(r"head\.conv_feat\.fcos_head_(cls|reg)_tower_conv_(\d)", r"bbox_head.\1_convs.\2", name) \
            if "tower" in name else name.replace("head.", "bbox_head.", 1)
    if part == "neck":
        laterals = sorted({key.split(".")[1] for key in own if key.startswith("neck.fpn_inner")})
        outputs = sorted({key.split(".")[1] for key in own if re.match(r"neck\.fpn_res\d_sum\.", key)})
        outputs += sorted({key.split(".")[1] for key in own if re.match(r"neck\.fpn_\d\.", key)})
        first = rest.split(".")[0]
        kind, places = ("lateral", laterals) if first in laterals else ("fpn", outputs)
        return f"neck.{kind}_convs.{places.index(first)}.conv.{last}"
    if rest.startswith("conv1.conv1."):
        return f"backbone.{'conv1' if '.conv.' in rest else 'bn1'}.{last}"
    block = ".".join(rest.split(".")[:2])
    stage, index = blocks[block]
    branch = rest.split(".")[2]
    if branch == "short":
        inner = f"downsample.{0 if '.conv.' in rest else 1}"
    else:
        inner = f"{'conv' if '.conv.' in rest else 'bn'}{'abc'.index(branch[-1]) + 1}"
    return f"backbone.layer{stage}.{index}.{inner}.{last}"


def _array(name, array, ratios, own):
    """Anchors of a place by their ratios first."""
    if "retina_" not in name:
        return array
    sizes = len(own["head.retina_reg.bias"]) // 4 // ratios
    rows = array.reshape([sizes, ratios, -1, *array.shape[1:]])
    return np.ascontiguousarray(rows.swapaxes(0, 1).reshape(array.shape))
