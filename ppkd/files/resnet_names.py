"""Names of PyTorch's ResNets in ppdet's."""

import re

import numpy as np

_DEPTHS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
_EPS = 1e-5  # of ppdet's batch norms
STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}


def blocks_of(backbone):
    """Stage (from 1) -> names of its blocks in ppdet's ResNet, such as ``res4.res4b1``."""
    stages = {}
    for name in backbone.state_dict():
        if match := re.match(r"res(\d)\.\w+(?=\.)", name):
            blocks = stages.setdefault(int(match[1]) - 1, [])
            if match[0] not in blocks:
                blocks.append(match[0])
    return stages


def resnet_name(name, blocks):
    """ppdet's name of a tensor of torchvision's ResNet, or None for one of a stage that is not there.

    A block that is not there keeps its name, and is told as unexpected.
    """
    stem, _, last = name.rpartition(".")
    last = STATISTICS.get(last, last)
    if stem in ("conv1", "bn1"):
        return f"conv1.conv1.{'conv' if stem == 'conv1' else 'norm'}.{last}"
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))", stem)
    if match is None:
        return name
    stage, block = int(match[1]), int(match[2])
    if stage not in blocks:
        return None
    if block >= len(blocks[stage]):
        return name
    kind = match[3] or ("conv" if match[5] == "0" else "bn")
    place = f"branch2{'abc'[int(match[4]) - 1]}" if match[4] else "short"
    return f"{blocks[stage][block]}.{place}.{'conv' if kind == 'conv' else 'norm'}.{last}"


def pass_input_on(arrays, own, prefix=""):
    """Let the first block add its input as it is.

    ppdet's ResNets of 18 and 34 layers have a convolution and a norm there, where those of PyTorch have nothing: what a
    file cannot have would begin at random. Both become what changes nothing.

    Args:
        arrays: ppdet's name -> array of the file; it is added to.
        own: name -> tensor of the model or backbone, all of it.
        prefix: of the backbone's names.
    """
    stem = f"{prefix}res2.res2a.short."
    shape = list(own[f"{stem}conv.weight"].shape) if f"{stem}conv.weight" in own else []
    if f"{stem}conv.weight" in arrays or shape[:1] != shape[1:2] or shape[2:] != [1, 1]:
        return
    count = shape[0]
    arrays[f"{stem}conv.weight"] = np.eye(count, dtype="float32").reshape(shape)
    values = {"weight": 1.0, "bias": 0.0, "_mean": 0.0, "_variance": 1.0 - _EPS}
    for name, value in values.items():
        arrays[f"{stem}norm.{name}"] = np.full([count], value, "float32")


def depth_of(blocks, names):
    """Layers of the ResNet that has so many blocks in its stages, and tensors of these names; None for none."""
    depth = _DEPTHS.get(tuple(blocks))
    return 34 if depth == 50 and not any(".conv3." in name for name in names) else depth


def other_depth(what, found, there, depth):
    """The line for a ResNet of another depth than that of ``-c``: blocks of the stages of the two."""
    hint = f"give -o ResNet.depth={depth}" if depth else "no ResNet of ppdet has these"
    return f"{what} with {found} blocks in its stages, but the config has {there}: {hint}"
