"""Weights of other projects' files for PyTorch, under the names that the same layers have here."""

import re
from dataclasses import dataclass

import numpy as np

from ppkd.errors import UserError
from ppkd.files import mmdet
from ppkd.files.fit import compare, misfit
from ppkd.files.mmdet_former import of_today
from ppkd.files.mmdet_told import Told
from ppkd.files.resnet_names import STATISTICS, blocks_of, depth_of, other_depth, pass_input_on, resnet_name
from ppkd.files.torch_files import Tensor, read_torch
from ppkd.terminal.log import logger

STUDENT, TEACHER = "student", "teacher"
# What distillers call the two detectors, and what they train beside them. FGD's has maps that it recorded, too: their
# names begin like a part's, but with no dot.
_DISTILLERS = (
    ("MMRazor", {STUDENT: "architecture.", TEACHER: "teacher."}, "distiller."),
    ("FGD or MGD", {STUDENT: "student.", TEACHER: "teacher."}, "distill_losses."),
)
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


def look(path, part=STUDENT):
    """What a file holds, if it is a detector of MMDetection's that is not RTMDet.

    Returns:
        ``(state, told)``: MMDetection's name -> array, and what the file's notes tell, a `Told`; None for any other
        file.

    Raises:
        UserError: the file cannot be read.
    """
    tree = read_torch(path)
    try:
        _, state, _ = _detector(_state(tree), part)
        state, _ = of_today(state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not mmdet.architecture_of(state):
        return None
    return {name: tensor.numpy() for name, tensor in state.items()}, Told.of(tree, path, part)


def take_weights(path, model, part=STUDENT, num_classes=None, whole=True):
    """Read a detector's or a backbone's weights out of a file of ``torch.save``.

    Args:
        path: the local file.
        model: the ppdet model that they have to fit: every name and every shape, of the whole or of its backbone.
        part: ``student`` or ``teacher``: which one of a distillation by MMRazor.
        num_classes: the model's, if known, for messages.
        whole: whether it all has to fit; else whatever it is comes under the names that it has here.

    Returns:
        name -> numpy array, in the model's order; a backbone's as ppdet's files of backbones have them.

    Raises:
        UserError: the file cannot be read, is none of those that are known, or does not fit.
    """
    tree = read_torch(path)
    try:
        found = _recognise(_state(tree), part, model, Told.of(tree, path, part), num_classes if whole else None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    own = model if not found.part else getattr(model, found.part)
    fit = compare(found.arrays, own)
    if whole and not fit.complete:
        raise UserError(f"{path}: {found.what}, which does not fit the detector of -c: {misfit(fit, num_classes)}")
    if found.what.endswith(f"RTMDet of {_MMDET}"):
        _check_distances(path, found.what, tree, model)
    left = ", ".join(f"{count} of {name}" for name, count in found.left.items() if count)
    logger().info("%s: %s, %d tensors; left out: %s", path, found.what, len(found.arrays), left or "none")
    return {name: found.arrays[name] for name in own.state_dict()} if whole else found.arrays


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


def _detector(state, part):
    """What the tensors of one detector are in words as far as a distiller tells it; they; and what is left out."""
    for maker, parts, others in _DISTILLERS:
        if any(name.startswith(parts[STUDENT]) for name in state):
            return f"the {part} of a distillation by {maker}: ", *_part_of(state, maker, parts, others, part)
    if part == TEACHER:
        raise UserError("--part teacher is for a distillation by MMRazor, FGD or MGD, which this is not")
    return "", state, {}


def _recognise(state, part, model, told, num_classes):
    what, state, left = _detector(state, part)
    state, former = of_today(state)
    left = {**left, **former}
    if mmdet.architecture_of(state):  # before RTMDet: YOLOX has a backbone of the same names
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        found, arrays, unused = mmdet.take(arrays, model, num_classes, told.blue_first)
        return Found(what + found, arrays, "", {**left, **unused})
    if "backbone.stage4.2.final_conv.conv.weight" in state:
        return _rtmdet(what, state, left)
    if not what and {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.bn1.weight"} <= state.keys():
        return _resnet(state, model, told)
    known = (
        "RTMDet of MMYOLO or MMDetection; RetinaNet, FCOS, GFL, YOLOX, RepPoints, SOLO, Faster, Mask and Cascade R-CNN "
        "of MMDetection; distillations of these by MMRazor, FGD or MGD; CSPNeXt, and torchvision's ResNet"
    )
    raise UserError(f"{what}not one of the weights that are known ({known}); it holds {_names(state)}")


def _part_of(whole, maker, parts, others, part):
    """The tensors of one detector of a distillation, and what is left out -> number of tensors."""
    prefix = parts[part]
    state = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
    if not state:
        raise UserError(f"of {maker}'s, but no {prefix}* in it; it holds {_names(whole)}")
    rest = [name for name in whole if not name.startswith(prefix)]
    known = [other for other in (*parts.values(), others) if other != prefix]
    left = {other[:-1]: sum(name.startswith(other) for name in rest) for other in known}
    left["other tensors"] = len(rest) - sum(left.values())
    return state, left


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
    return f"{stem}.{STATISTICS.get(last, last)}"


def _resnet(state, model, told):
    """torchvision's ResNet, for a detector whose backbone is one of ppdet's of the same kind; or Detectron's."""
    own = getattr(model, "backbone", None)
    if type(own).__name__ != "ResNet":
        raise UserError(
            f"a ResNet of torchvision, but the backbone of -c is {type(own).__name__}; -c has to be a detector "
            "with the ResNet that it is for"
        )
    blocks = blocks_of(own)
    arrays, left = {}, {}
    for name, tensor in state.items():
        if any(word in name for word in _UNUSED):
            continue
        if name.startswith("fc."):
            left["fc"] = left.get("fc", 0) + 1
        elif (new := resnet_name(name, blocks)) is None:
            # A stage that the detector does not have.
            left[name.split(".")[0]] = left.get(name.split(".")[0], 0) + 1
        else:
            array = tensor.numpy()
            # Detectron's takes blue, green, red.
            arrays[new] = np.ascontiguousarray(array[:, ::-1]) if told.caffe and name == "conv1.weight" else array
    _check_blocks(state, blocks)
    pass_input_on(arrays, own.state_dict())
    return Found("a ResNet of Detectron" if told.caffe else "a ResNet of torchvision", arrays, "backbone", left)


def _check_blocks(state, blocks):
    """Refuse a ResNet of another depth."""
    found = {}
    for name in state:
        if (match := re.match(r"layer(\d)\.(\d+)\.", name)) and int(match[1]) in blocks:
            found.setdefault(int(match[1]), set()).add(match[2])
    deep, there = ([len(stages[k]) for k in sorted(stages)] for stages in (found, blocks))
    if deep != there:
        raise UserError(other_depth("a ResNet", deep, there, depth_of(deep, state)))


def _names(tree):
    names = [str(name) for name in tree]
    return f"{len(names)} entries: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
