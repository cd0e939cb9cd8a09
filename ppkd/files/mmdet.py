"""Detectors of MMDetection: their tensors under ppdet's names, in ppdet's order."""

import re

import numpy as np

from ppkd.errors import UserError
from ppkd.files.resnet_names import STATISTICS, blocks_of, depth_of, other_depth, pass_input_on, resnet_name

# A name that only this detector has -> architecture here, and a config of ours to begin with.
_KNOWN = (
    ("bbox_head.retina_cls.weight", "RetinaNet", "retinanet/retinanet_r50_fpn_1x_coco"),
    ("bbox_head.conv_centerness.weight", "FCOS", "fcos/fcos_r50_fpn_1x_coco"),
    ("bbox_head.gfl_cls.weight", "GFL", "gfl/gfl_r50_fpn_1x_coco"),
    ("bbox_head.reppoints_cls_out.weight", "RepPoints", "reppoints/reppoints_r50_fpn_gn_1x_coco"),
    ("bbox_head.multi_level_conv_cls.0.weight", "YOLOX", "yolox/yolox_s_300e_coco"),
    ("mask_head.conv_cls.weight", "SOLO", "solo/solo_r50_fpn_1x_coco"),
    ("roi_head.bbox_head.0.fc_cls.weight", "CascadeRCNN", "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco"),
    ("roi_head.mask_head.conv_logits.weight", "MaskRCNN", "mask_rcnn/mask_rcnn_r50_fpn_1x_coco"),
    ("roi_head.bbox_head.fc_cls.weight", "FasterRCNN", "faster_rcnn/faster_rcnn_r50_fpn_1x_coco"),
)
_TOWER = r"^bbox_head\.(cls|reg)_convs\.(\d+)\."
_RULES = {
    "RetinaNet": (
        (_TOWER, r"head.conv_feat.fcos_head_\1_tower_conv_\2."),
        (r"^bbox_head\.", "head."),
    ),
    "FCOS": (
        (_TOWER + r"gn\.", r"fcos_head.fcos_feat.fcos_head_\1_tower_conv_\2.norm."),
        (_TOWER, r"fcos_head.fcos_feat.fcos_head_\1_tower_conv_\2."),
        (r"^bbox_head\.conv_(cls|reg|centerness)\.", r"fcos_head.fcos_head_\1."),
    ),
    "GFL": (
        (_TOWER + r"gn\.", r"head.conv_feat.fcos_head_\1_tower_conv_\2.norm."),
        (_TOWER, r"head.conv_feat.fcos_head_\1_tower_conv_\2."),
        (r"^bbox_head\.gfl_(cls|reg)\.", r"head.gfl_head_\1."),
        (r"^bbox_head\.integral\.project", "head.distribution_project.project"),
    ),
    "RepPoints": ((r"^bbox_head\.", "head."),),
    "SOLO": ((r"^mask_head\.", "head."),),
}
_CSP = (
    (r"\.main_conv\.", ".conv1."),
    (r"\.short_conv\.", ".conv2."),
    (r"\.final_conv\.", ".conv3."),
    (r"\.blocks\.", ".bottlenecks."),
)
_RULES["YOLOX"] = (
    *_CSP,
    (r"^backbone\.stage([1-4])\.0\.", lambda m: f"backbone.layers{2 * int(m[1]) - 1}.stage{m[1]}.conv_layer."),
    (r"^backbone\.stage([1-3])\.1\.", lambda m: f"backbone.layers{2 * int(m[1])}.stage{m[1]}.csp_layer."),
    (r"^backbone\.stage4\.1\.", "backbone.layers8.stage4.spp_layer."),
    (r"^backbone\.stage4\.2\.", "backbone.layers9.stage4.csp_layer."),
    (r"^neck\.reduce_layers\.", "neck.lateral_convs."),
    (r"^neck\.top_down_blocks\.", "neck.fpn_blocks."),
    (r"^neck\.downsamples\.", "neck.downsample_convs."),
    (r"^neck\.bottom_up_blocks\.", "neck.pan_blocks."),
    # In ppdet the neck's last convolutions are the head's first.
    (r"^neck\.out_convs\.", "head.stem_conv."),
    (r"^bbox_head\.multi_level_(cls|reg)_convs\.", r"head.conv_\1."),
    (r"^bbox_head\.multi_level_conv_(cls|reg)\.(\d)\.", r"head.conv_\1.\2.2."),
)
_STEM = "backbone.stem.conv.conv.weight"
_RPN = (
    (r"^rpn_head\.rpn_conv\.", "rpn_head.rpn_feat.rpn_conv."),
    (r"^rpn_head\.rpn_cls\.", "rpn_head.rpn_rois_score."),
    (r"^rpn_head\.rpn_reg\.", "rpn_head.rpn_rois_delta."),
)
_MASK = (
    (r"^roi_head\.mask_head\.upsample\.", "mask_head.head.upsample.conv5_mask."),
    (r"^roi_head\.mask_head\.conv_logits\.", "mask_head.mask_fcn_logits."),
)
_BOX = (
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "bbox_head.head.fc6."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "bbox_head.head.fc7."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "bbox_head.bbox_score."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "bbox_head.bbox_delta."),
)


def _inner(match):
    return f"mask_head.earlier.{match[1]}.head.upsample.mask_inter_feat_{int(match[2]) + 1}."


_CASCADE = (
    (r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.0\.", r"bbox_head.head.\1.fc6."),
    (r"^roi_head\.bbox_head\.(\d)\.shared_fcs\.1\.", r"bbox_head.head.\1.fc7."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_cls\.", r"bbox_head.bbox_score_stage\1."),
    (r"^roi_head\.bbox_head\.(\d)\.fc_reg\.", r"bbox_head.bbox_delta_stage\1."),
    (r"^roi_head\.mask_head\.2\.", "roi_head.mask_head."),
    (r"^roi_head\.mask_head\.([01])\.upsample\.", r"mask_head.earlier.\1.head.upsample.conv5_mask."),
    (r"^roi_head\.mask_head\.([01])\.conv_logits\.", r"mask_head.earlier.\1.logits."),
    (r"^roi_head\.mask_head\.([01])\.convs\.(\d)\.conv\.", _inner),
    *_MASK,
)
_RULES |= {"FasterRCNN": (*_RPN, *_BOX), "MaskRCNN": (*_RPN, *_BOX, *_MASK), "CascadeRCNN": (*_RPN, *_CASCADE)}
_EARLIER_MASKS = re.compile(r"roi_head\.mask_head\.[01]\.")
_FC = re.compile(r"\.(fc6|fc7|bbox_score(_stage\d)?|bbox_delta(_stage\d)?)\.weight$")
_CONV1 = "backbone.conv1.weight"
_OWN = ("weight", "bias")
# The sigmoid of it is 1 in float32: a deformable convolution that does not modulate.
_OPEN = 100.0
_OFFSETS = (18, 27)  # y and x of nine places, and in the second kind a weight


def architecture_of(state):
    """The architecture here of MMDetection's tensors, or None if they are not one of those that are known."""
    return next((kind for name, kind, _ in _KNOWN if name in state), None)


def check_kind(state, architecture):
    """Refuse a config of another architecture.

    Raises:
        UserError: the message says what the tensors are and which config would fit.
    """
    kind = architecture_of(state)
    if architecture.removesuffix("OfMMDet") != kind:
        config = next(config for _, known, config in _KNOWN if known == kind)
        raise UserError(f"{describe(state)}, but the config is of {architecture}; begin with configs/{config}.yml")


def take(state, model, num_classes=None, blue_first=False):
    """The tensors of a detector of MMDetection for one of ppdet.

    Args:
        state: name -> array.
        model: the ppdet model that they are for.
        num_classes: the model's, or None where another number is no reason to refuse.
        blue_first: whether its ResNet takes blue, green, red; what is returned takes red, green, blue.

    Returns:
        What they are, in words; name -> array; and what is left out -> number of tensors.

    Raises:
        UserError: the model is of another architecture, depth, kind of backbone or number of classes; the message says
            which would fit.
    """
    kind = architecture_of(state)
    what = describe(state)
    check_kind(state, type(model).__name__)
    count = classes_in(state)
    if num_classes is not None and count is not None and num_classes != count:
        raise UserError(f"{what}, but the config has {num_classes} classes: give -o num_classes={count}")
    try:
        return what, *(_yolox(state) if kind == "YOLOX" else _renamed_for(state, model, kind, what, blue_first))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{what} without what such a detector has, or of another form: {error}") from None


def _renamed_for(state, model, kind, what, blue_first):
    """name here -> array, and what is left out -> number of tensors."""
    own = model.state_dict()
    blocks = blocks_of(model.backbone)
    deep, there = _blocks_in(state), [len(names) for _, names in sorted(blocks.items())]
    if deep != there:
        raise UserError(other_depth(what, deep, there, depth_of(deep, state)))
    offsets = [array for name, array in state.items() if name.endswith("conv2.conv_offset.weight")]
    if offsets and len(offsets[0]) not in _OFFSETS:
        raise UserError(f"{what}: its deformable convolutions are in several groups, ppdet's in one: no config fits")
    state = _background_last(state)
    if blue_first:
        state = {**state, _CONV1: np.ascontiguousarray(state[_CONV1][:, ::-1])}
    arrays, left = {}, {}
    for name, array in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = array.astype("float32")  # ppdet has nothing else, and files may be of half precision
        if unused := _unused(name, model):
            left[unused] = left.get(unused, 0) + 1
            continue
        new = _name(name, kind, blocks, own)
        if (deformable := _deformable(new)) in own:
            new = deformable
        if _FC.search(new):
            array = np.ascontiguousarray(array.T)
        if new in own and list(own[new].shape) == [1] and array.shape == ():
            array = array.reshape(1)
        arrays[new] = array
    if kind == "RetinaNet":
        _by_size_first(arrays, len(model.head.anchor_generator.aspect_ratios))
    elif "RCNN" in kind:
        names = ("rpn_head.rpn_rois_score", "rpn_head.rpn_rois_delta")
        _by_size_first(arrays, len(model.rpn_head.anchor_generator.aspect_ratios), names)
    _modulate(arrays, own)
    _add_biases(arrays, own)
    pass_input_on(arrays, own, "backbone.")
    return arrays, left


def _yolox(state):
    arrays = {}
    for name, array in state.items():
        stem, _, last = name.rpartition(".")
        if last != "num_batches_tracked" and "multi_level_conv_obj" not in name:
            new = _renamed(f"{stem}.{STATISTICS.get(last, last)}", _RULES["YOLOX"])
            arrays[new] = array.astype("float32")
    for name, array in state.items():
        # Objectness is the fifth output of ppdet's boxes.
        if match := re.match(r"bbox_head\.multi_level_conv_obj\.(\d)\.(weight|bias)", name):
            box = f"head.conv_reg.{match[1]}.2.{match[2]}"
            arrays[box] = np.concatenate([arrays[box], array.astype("float32")])
    # MMDetection's images are blue, green, red, and there are four of them side by side.
    rows = arrays[_STEM]
    colours = rows.reshape([len(rows), 4, 3, *rows.shape[2:]])[:, :, ::-1]
    return {**arrays, _STEM: np.ascontiguousarray(colours.reshape(rows.shape))}, {}


def _renamed(name, rules):
    for old, new in rules:
        name = re.sub(old, new, name)
    return name


def _unused(name, model):
    """What a tensor belongs to that the model has no place for; empty for the others."""
    if name.startswith("roi_head.mask_head.") and not getattr(model, "with_mask", True):
        return "masks, which -c does not find"
    one = _EARLIER_MASKS.match(name) and not hasattr(model.mask_head, "earlier")
    return "mask heads before the last" if one else ""


def backbone_arrays(state, model):
    """The tensors of a ResNet or ResNeXt alone, ``backbone.*``, for a model with such a backbone."""
    own, blocks = model.state_dict(), blocks_of(model.backbone)
    known = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    arrays = {_name(name, None, blocks, own): array.astype("float32") for name, array in known.items()}
    _modulate(arrays, own)
    return arrays


def describe(state):
    """``RetinaNet of MMDetection with 80 classes``."""
    depth = depth_of(_blocks_in(state), state)
    body = f" on a ResNet or ResNeXt of {depth} layers" if depth else ""
    count = classes_in(state)
    classes = f" with {count} classes" if count is not None else ""
    return f"{architecture_of(state)} of MMDetection{classes}{body}"


def classes_in(state):
    """Number of classes, without the background; None where what would tell it is missing."""
    kind = architecture_of(state)
    name = next(name for name, known, _ in _KNOWN if known == kind)
    name = {"FCOS": "bbox_head.conv_cls.weight", "MaskRCNN": "roi_head.bbox_head.fc_cls.weight"}.get(kind, name)
    if name not in state:
        return None
    count = len(state[name])
    if kind == "RetinaNet":
        boxes = state.get("bbox_head.retina_reg.weight")
        return count if boxes is None else count // max(len(boxes) // 4, 1)
    return count - 1 if "RCNN" in kind else count


def _background_last(state):
    """R-CNNs of MMDetection 1 have the background as their first class, and boxes for it: here it is the last one."""
    found = dict(state)
    for name, array in state.items():
        if match := re.match(r"(roi_head\.bbox_head\.(?:\d\.)?)fc_reg\.(weight|bias)", name):
            scores = f"{match[1]}fc_cls.{match[2]}"
            if len(array) > 4 and len(array) == 4 * len(state[scores]):
                found[name], found[scores] = array[4:], np.roll(state[scores], -1, axis=0)
    return found


def _blocks_in(state):
    """Number of blocks of each stage of the backbone."""
    found = {}
    for name in state:
        if match := re.match(r"backbone\.layer(\d)\.(\d+)\.", name):
            found[int(match[1])] = max(found.get(int(match[1]), 0), int(match[2]) + 1)
    return [found[stage] for stage in sorted(found)]


def _name(name, kind, blocks, own):
    """The name here; one that is not known stays, and is told as unexpected."""
    part, _, rest = name.partition(".")
    if part == "backbone":
        new = f"backbone.{_in_backbone(rest, blocks)}"
        # So ppdet calls the stem of a ResNeXt.
        stem = new.replace("conv1.conv1.", "conv1.res_conv1.")
        return stem if stem in own else new
    if part == "neck":
        return _in_neck(name, own)
    if match := re.match(r"^bbox_head\.scales\.(\d)\.scale$", name):
        return f"{'fcos_head' if kind == 'FCOS' else 'head'}.p{int(match[1]) + 3}_feat.scale_reg"
    name = _renamed(name, _RULES[kind])
    if match := re.match(r"^roi_head\.mask_head\.convs\.(\d)\.conv\.", name):
        return name.replace(match[0], f"mask_head.head.upsample.mask_inter_feat_{int(match[1]) + 1}.")
    return name


def _in_backbone(rest, blocks):
    offset = re.fullmatch(r"(layer\d\.\d+\.conv2)\.conv_offset\.(weight|bias)", rest)
    if offset:
        return resnet_name(f"{offset[1]}.weight", blocks).replace("conv.weight", f"conv_offset.{offset[2]}")
    return resnet_name(rest, blocks) or f"{rest.rpartition('.')[0]}.{STATISTICS.get(rest.rpartition('.')[2])}"


def _in_neck(name, own):
    match = re.fullmatch(r"neck\.(lateral|fpn)_convs\.(\d)\.(conv|gn)\.(weight|bias)", name)
    if match is None:
        return name
    laterals = sorted({key.split(".")[1] for key in own if key.startswith("neck.fpn_inner_")})
    outputs = sorted({key.split(".")[1] for key in own if re.match(r"neck\.fpn_res\d_sum\.", key)})
    outputs += sorted({key.split(".")[1] for key in own if re.match(r"neck\.fpn_\d\.", key)})
    places, index = (laterals if match[1] == "lateral" else outputs), int(match[2])
    if index >= len(places):
        return name
    stem = f"neck.{places[index]}"
    inner = "norm." if match[3] == "gn" else "conv." if f"{stem}.conv.weight" in own else ""
    return f"{stem}.{inner}{match[4]}"


def _by_size_first(arrays, ratios=3, names=("head.retina_cls", "head.retina_reg")):
    """Anchors of a place: MMDetection goes through the sizes of each ratio, ppdet through the ratios of each size."""
    anchors = max((len(arrays[f"{names[1]}.{own}"]) // 4 for own in _OWN if f"{names[1]}.{own}" in arrays), default=0)
    for name in (f"{name}.{own}" for name in names for own in _OWN):
        array = arrays.get(name)
        if array is None or not anchors or anchors % ratios or len(array) % anchors:
            continue  # it fits no detector, which is told with all else that does not
        rows = array.reshape([ratios, anchors // ratios, -1, *array.shape[1:]])
        arrays[name] = np.ascontiguousarray(rows.swapaxes(0, 1).reshape(array.shape))


def _deformable(name):
    """A tower's convolution as it is called where it is deformable."""
    return re.sub(r"\.conv\.(weight|bias)$", r".conv.conv_dcn.\1", name)


def _modulate(arrays, own):
    """ppdet's deformable convolutions weigh every place: those of the first kind get weights that are always 1."""
    for name in [name for name in arrays if ".conv_offset." in name and name in own]:
        array, wanted = arrays[name], own[name].shape[0]
        if len(array) * 3 == wanted * 2:
            fill = _OPEN if name.endswith("bias") else 0.0
            more = np.full([wanted - len(array), *array.shape[1:]], fill, array.dtype)
            arrays[name] = np.concatenate([array, more])


def _add_biases(arrays, own):
    """ppdet's towers have a bias before their norm, too: it is zero."""
    for name in own:
        norm = re.sub(r"\.conv\.(conv_dcn\.)?bias$", ".norm.weight", name)
        if name not in arrays and norm != name and norm in arrays:
            arrays[name] = np.zeros_like(arrays[norm])
