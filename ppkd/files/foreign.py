"""Weights of other projects' files for PyTorch, under the names that the same layers have here."""

import re
from dataclasses import dataclass

import numpy as np

from ppkd.errors import UserError
from ppkd.files.convert import compare, misfit
from ppkd.files.torch_files import Tensor, read_torch
from ppkd.terminal.log import logger

STUDENT, TEACHER = "student", "teacher"
# MMRazor's names of the two detectors, and of what it trains beside them.
_PARTS = {STUDENT: "architecture.", TEACHER: "teacher."}
_DISTILLER = "distiller."
_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_UNUSED = ("num_batches_tracked", "data_preprocessor", "priors_base_sizes", "grid_offset", "prior_inds")

# MMDetection's names of RTMDet's neck and head as MMYOLO has them.
_OF_MMDET = (
    (r"^neck\.reduce_layers\.0\.", "neck.reduce_layers.2."),
    (r"^neck\.reduce_layers\.1\.", "neck.top_down_layers.0.1."),
    (r"^neck\.top_down_blocks\.0\.", "neck.top_down_layers.0.0."),
    (r"^neck\.top_down_blocks\.1\.", "neck.top_down_layers.1."),
    (r"^neck\.downsamples\.", "neck.downsample_layers."),
    (r"^neck\.bottom_up_blocks\.", "neck.bottom_up_layers."),
    (r"^neck\.out_convs\.", "neck.out_layers."),
    (r"^bbox_head\.", "bbox_head.head_module."),
)
# MMYOLO's as they are here; a head's convolution is that of all levels.
_OF_MMYOLO = (
    (r"\.depthwise_conv\.", ".dw_conv."),
    (r"\.pointwise_conv\.", ".pw_conv."),
    (r"^bbox_head\.head_module\.(cls|reg)_convs\.\d+\.(\d+)\.conv\.", r"head.\1_convs.\2."),
    (r"^bbox_head\.head_module\.(cls|reg)_convs\.(\d+)\.(\d+)\.bn\.", r"head.\1_norms.\2.\3."),
    (r"^bbox_head\.head_module\.", "head."),
)
_MMDET = "MMDetection"
_MMYOLO_HEAD = "bbox_head.head_module."
_STEM = "backbone.stem.0.conv.weight"


@dataclass
class Found:
    """What a file is.

    Attributes:
        what: in words, for the log and for errors.
        arrays: name -> array, under the names that they have here.
        part: the part of a detector that they are; empty for a whole one.
        left: what is left out -> number of tensors.
    """

    what: str
    arrays: dict
    part: str
    left: dict


def take_weights(path, model, part=STUDENT, num_classes=None):
    """Read a detector's or a backbone's weights out of a file of ``torch.save``.

    Args:
        path: the local file.
        model: the ppdet model that they have to fit: every name and every shape, of the whole or of its backbone.
        part: ``student`` or ``teacher``: which one of a distillation by MMRazor.
        num_classes: the model's, if known, for messages.

    Returns:
        name -> numpy array, in the model's order; a backbone's as ppdet's files of backbones have them.

    Raises:
        UserError: the file cannot be read, is none of those that are known, or does not fit.
    """
    tree = read_torch(path)
    try:
        found = _recognise(_state(tree), part, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    own = model if not found.part else getattr(model, found.part)
    fit = compare(found.arrays, own)
    if not fit.complete:
        raise UserError(f"{path}: {found.what}, which does not fit the detector of -c: {misfit(fit, num_classes)}")
    if found.what.endswith(_MMDET):
        _check_distances(path, found.what, tree, model)
    left = ", ".join(f"{count} of {name}" for name, count in found.left.items() if count)
    logger().info("%s: %s, %d tensors; left out: %s", path, found.what, len(found.arrays), left or "none")
    return {name: found.arrays[name] for name in own.state_dict()}


def _state(tree):
    """Name -> `Tensor` of the weights in what a file holds."""
    if not isinstance(tree, dict):
        raise UserError(f"a {type(tree).__name__} was saved in it, not named tensors")
    state = tree.get("state_dict", tree)
    tensors = _tensors(state) if isinstance(state, dict) else {}
    if not tensors:
        raise UserError(f"there are no named tensors in it; it holds {_names(tree)}")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _tensors(state):
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _recognise(state, part, model):
    left = {}
    what = ""
    if any(name.startswith(_PARTS[STUDENT]) for name in state):
        prefix, whole = _PARTS[part], state
        state = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
        if not state:
            raise UserError(f"of MMRazor's, but no {prefix}* in it; it holds {_names(whole)}")
        others = [*_PARTS.values(), _DISTILLER]
        left = {other[:-1]: sum(name.startswith(other) for name in whole) for other in others if other != prefix}
        what = f"the {part} of a distillation by MMRazor: "
    elif part == TEACHER:
        raise UserError("--part teacher is for a distillation by MMRazor, which this is not")
    if "backbone.stage4.2.final_conv.conv.weight" in state:
        return _rtmdet(what, state, left)
    if not what and {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.bn1.weight"} <= state.keys():
        return _resnet(state, model)
    known = "RTMDet of MMYOLO or MMDetection, its distillation by MMRazor, CSPNeXt, and torchvision's ResNet"
    raise UserError(f"{what}not one of the weights that are known ({known}); it holds {_names(state)}")


def _rtmdet(what, state, left):
    """RTMDet of MMYOLO or MMDetection, or its backbone with a classifier."""
    heads = [name for name in state if name.startswith("bbox_head.")]
    part = "" if heads else "backbone"
    if heads:
        what += f"RTMDet of {'MMYOLO' if any(name.startswith(_MMYOLO_HEAD) for name in heads) else _MMDET}"
    else:
        what += "CSPNeXt, RTMDet's backbone"
    left = dict(left)
    for name in [name for name in state if part and not name.startswith("backbone.")]:
        left[name.split(".")[0]] = left.get(name.split(".")[0], 0) + 1
    try:
        arrays = rtmdet_arrays({k: v.numpy() for k, v in state.items() if k.startswith("backbone.") or not part})
    except UserError as error:
        raise UserError(f"{what}, but {error}") from None
    return Found(what, {name.removeprefix("backbone.") if part else name: x for name, x in arrays.items()}, part, left)


def _check_distances(path, what, tree, model):
    """MMDetection's head makes distances in one of two ways, of which nothing but its config's text tells."""
    meta = tree.get("meta")
    said = re.search(r"exp_on_reg\s*=\s*(True|False)", str(meta.get("cfg")) if isinstance(meta, dict) else "")
    own = bool(getattr(model.head, "exp_on_reg", False))
    if said is None:
        logger().warning(
            "%s: %s without its config; its m, l and x need -o RTMDetHead.exp_on_reg=true, tiny and s false", path, what
        )
    elif (said[1] == "True") != own:
        raise UserError(
            f"{path}: {what} with exp_on_reg={said[1]}, that of -c is {own}: give -o RTMDetHead.exp_on_reg="
            f"{said[1].lower()} here and wherever these weights are used"
        )


def rtmdet_arrays(state):
    """RTMDet's tensors under the names, and for the order of colours, that they have here.

    Args:
        state: name of MMYOLO's or MMDetection's -> array.

    Raises:
        UserError: convolutions of the head that have to be the same on all levels differ.
    """
    of_mmdet = not any(name.startswith(_MMYOLO_HEAD) for name in state)
    arrays = {}
    for name, array in state.items():
        if any(word in name for word in _UNUSED):
            continue
        new = rtmdet_name(name, of_mmdet)
        if new in arrays and not np.array_equal(arrays[new], array):
            raise UserError(f"its head's convolutions, which all levels share, differ at {name}")
        arrays[new] = array
    if _STEM in arrays:
        # OpenMMLab's images are blue, green, red; ppdet's are red, green, blue.
        arrays[_STEM] = np.ascontiguousarray(arrays[_STEM][:, ::-1])
    return arrays


def rtmdet_name(name, of_mmdet=False):
    """The name here of a tensor of MMYOLO's RTMDet, or of MMDetection's."""
    return _renamed(name, (*_OF_MMDET, *_OF_MMYOLO) if of_mmdet else _OF_MMYOLO)


def _renamed(name, rules):
    for old, new in rules:
        name = re.sub(old, new, name)
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_STATISTICS.get(last, last)}"


def _resnet(state, model):
    """torchvision's ResNet, for a detector whose backbone is one of ppdet's of the same kind."""
    own = getattr(model, "backbone", None)
    if type(own).__name__ != "ResNet":
        raise UserError(
            f"a ResNet of torchvision, but the backbone of -c is {type(own).__name__}; -c has to be a detector "
            "with the ResNet that it is for"
        )
    blocks = _blocks(own)
    arrays, left = {}, {}
    for name, tensor in state.items():
        if any(word in name for word in _UNUSED):
            continue
        if name.startswith("fc."):
            left["fc"] = left.get("fc", 0) + 1
        elif (new := _resnet_name(name, blocks)) is None:
            # A stage that the detector does not have.
            left[name.split(".")[0]] = left.get(name.split(".")[0], 0) + 1
        else:
            arrays[new] = tensor.numpy()
    return Found("a ResNet of torchvision", arrays, "backbone", left)


def _blocks(backbone):
    """Stage (from 1) -> names of its blocks in ppdet's ResNet, such as ``res4.res4b1``."""
    stages = {}
    for name in backbone.state_dict():
        if match := re.match(r"res(\d)\.\w+(?=\.)", name):
            blocks = stages.setdefault(int(match[1]) - 1, [])
            if match[0] not in blocks:
                blocks.append(match[0])
    return stages


def _resnet_name(name, blocks):
    """ppdet's name of a tensor of torchvision's ResNet, or None for one of a stage that is not there.

    A block that is not there keeps its name, and is told as unexpected.
    """
    stem, _, last = name.rpartition(".")
    last = _STATISTICS.get(last, last)
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


def _names(tree):
    names = [str(name) for name in tree]
    return f"{len(names)} entries: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
