"""What a config has to say so that weights of MMDetection give here what they gave there.

Most of it can be seen in the tensors; a file's own notes, the text of its config and the name of its run, tell the
style of the ResNet and how images are normalised. The rest is MMDetection's way of choosing detections.
"""

import copy
import re

from ppkd.files.mmdet_heads import anchors, pooling, regions
from ppkd.files.mmdet_text import within
from ppkd.files.mmdet_told import Told

__all__ = ["Told", "apply", "settings"]

# What the box deltas of a cascade's stages are multiplied by; ppdet has rounded the last stage's.
_STAGES = [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067]]
_READERS = ("TrainReader", "EvalReader", "TestReader")
# What of an architecture is ours where it is to do as MMDetection does: place -> ppdet's class, after which it is
# called.
_RPN = {"rpn_head": "RPNHead"}
_PARTS = {
    "RetinaNet": {"head": "RetinaHead"}, "FCOS": {"fcos_head": "FCOSHead"}, "GFL": {"head": "GFLHead"},
    "YOLOX": {"head": "YOLOXHead"}, "FasterRCNN": _RPN, "MaskRCNN": _RPN,
    "CascadeRCNN": {**_RPN, "bbox_head": "CascadeHead"},
}  # fmt: skip
_OURS = "OfMMDet"
_RATIOS, _RETINA_STRIDES, _RPN_STRIDES = [0.5, 1.0, 2.0], [8, 16, 32, 64, 128], [4, 8, 16, 32, 64]
_RETINA_SIZES = [[stride * 4 * 2 ** (k / 3) for k in range(3)] for stride in _RETINA_STRIDES]
_RPN_SIZES = [[8 * stride] for stride in _RPN_STRIDES]
_USUAL_GROUPS, _PAIRS = 32, 1000
_LATERAL = r"neck\.lateral_convs\.(\d+)\."
_PROPOSALS = {"min_size": 0.0, "nms_thresh": 0.7, "pre_nms_top_n": 1000, "post_nms_top_n": 1000}


def settings(kind, state, told):
    """What ppdet's config has to have, as nested keys.

    Args:
        kind: the architecture here.
        state: MMDetection's name -> array.
        told: `Told`.
    """
    parts = _PARTS.get(kind, {})
    found = {kind: {place: name + _OURS for place, name in parts.items()}}
    score, iou, most = told.choice(kind)
    chosen = {"name": "MultiClassNMS", "nms_top_k": -1, "keep_top_k": most, "score_threshold": score}
    head = {}
    if kind != "SOLO" and "RCNN" not in kind:
        head["nms"] = {**chosen, "nms_threshold": iou}
        found[parts["head" if "head" in parts else "fcos_head"] + _OURS if parts else f"{kind}Head"] = head
    if kind != "YOLOX":
        found |= {"ResNet": _resnet(state, told), "FPN": _neck(kind, state, told)}
    if kind == "FCOS":
        found["architecture"] = "FCOSOfMMDet"
        found["FCOSOfMMDet"] = found.pop("FCOS")
        head |= {
            "norm_reg_targets": told.says("norm_on_bbox", "normbbox"),
            "centerness_on_reg": told.says("centerness_on_reg", "normbbox"),
        }
    if kind in ("FCOS", "GFL", "RetinaNet"):
        tower = head["fcos_feat" if kind == "FCOS" else "conv_feat"] = {
            "num_convs": _count(state, r"bbox_head\.cls_convs\.(\d+)\."),
            "norm_type": "gn" if "bbox_head.cls_convs.0.gn.weight" in state else None,
        }
        if kind != "RetinaNet" and any(re.match(r"bbox_head\.cls_convs\.\d+\.conv\.conv_offset\.", x) for x in state):
            tower["name"] = "FCOSFeatOfMMDet"
    if kind == "GFL":
        head["reg_max"] = len(state["bbox_head.gfl_reg.weight"]) // 4 - 1
    if kind == "RetinaNet" and _are_others(own := anchors(told, "bbox_head"), _RETINA_SIZES, _RETINA_STRIDES):
        head["anchor_generator"] = own
    if kind == "RepPoints":
        head |= {"nms_pre": _whole(told.test().get("nms_pre"), _PAIRS), **_tower(state, told, "bbox_head")}
        head["point_feat_channels"] = len(state["bbox_head.reppoints_cls_conv.weight"])
    if kind == "SOLO":
        decoupled = "mask_head.conv_mask_list_x.0.weight" in state  # a map a row and one a column
        own = "DecoupledSOLOHead" if decoupled else "SOLOHead"
        found["SOLO"]["head"], found[own] = own, _solo(state, told, decoupled)
    if "RCNN" in kind:
        rpn = found["RPNHeadOfMMDet"] = {"test_proposal": {**_PROPOSALS, **regions(told)}}
        if _are_others(own := anchors(told, "rpn_head"), _RPN_SIZES, _RPN_STRIDES):
            rpn["anchor_generator"] = own
        found["BBoxPostProcess"] = {"nms": {**chosen, "nms_threshold": iou}}
        aligned = {"sampling_ratio": 0, "aligned": not told.version.startswith("1.")}
        box = found["CascadeHeadOfMMDet" if kind == "CascadeRCNN" else "BBoxHead"] = {
            "roi_extractor": {**aligned, **pooling(told, "bbox_roi_extractor")}
        }
        if kind == "CascadeRCNN":
            box["bbox_weight"] = _STAGES
            found["BBoxPostProcess"]["decode"] = {"name": "RCNNBox", "prior_box_var": _STAGES[-1]}
        if any(name.startswith("roi_head.mask_head.") for name in state):
            # A head of its own finds the masks of a cascade, of all of its stages.
            found["CascadeMaskHeadOfMMDet" if kind == "CascadeRCNN" else "MaskHead"] = {
                "roi_extractor": {**aligned, **pooling(told, "mask_roi_extractor")}
            }
    return {name: keys for name, keys in found.items() if keys}


def _are_others(own, sizes, strides):
    """Whether anchors that a text tells are other ones than all configs here have."""
    usual = {"anchor_sizes": sizes, "aspect_ratios": _RATIOS, "strides": strides}
    return bool(own) and any(not _close(own[key], value) for key, value in usual.items())


def _close(a, b):
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return not isinstance(a, list) and not isinstance(b, list) and abs(a - b) <= 1e-6 * abs(b)


def apply(config, kind, found, told):
    """Let a config say it.

    Args:
        config: a ppdet config for this kind of detector; it is changed.
        kind, told: as for `settings`.
        found: what it returns.

    Returns:
        Lines for the log: what changed.
    """
    before = copy.deepcopy(config)
    named = [*_PARTS.get(kind, {}).values(), *(["FCOS"] if kind == "FCOS" else [])]
    for name in named:
        config[name + _OURS] = copy.deepcopy({**(config.get(name) or {}), **(config.get(name + _OURS) or {})})
    _merge(config, found)
    if kind != "YOLOX":
        mean, std = told.normalisation(kind)
        for step in _steps(config, "NormalizeImage"):
            step["NormalizeImage"] = {"is_scale": False, "mean": list(mean), "std": list(std)}
    for reader in _READERS[1:]:
        if isinstance(config.get(reader), dict) and config[reader].get("sample_transforms"):
            config[reader]["sample_transforms"] = _in_order(config[reader]["sample_transforms"])
            for step in _steps({reader: config[reader]}, "PadBatch"):
                step["PadBatch"] = {"pad_to_stride": 32}
            if told.size:
                _of_size(config[reader], told.size)
    for step in _steps(config, "Gt2FCOSTarget"):
        head = config.get("FCOSHeadOfMMDet") or {}
        if step["Gt2FCOSTarget"]:
            step["Gt2FCOSTarget"]["norm_reg_targets"] = head.get("norm_reg_targets", False)
    for step in _steps(config, "Gt2SOLOTarget"):
        said = within(told.model, "mask_head")
        own = {"num_grids": found[found["SOLO"]["head"]]["num_grids"], "scale_ranges": said.get("scale_ranges"),
               "strides": said.get("strides"), "pos_scale": said.get("pos_scale")}  # fmt: skip
        step["Gt2SOLOTarget"] = {**(step["Gt2SOLOTarget"] or {}), **_given(own)}
    return _changes(before, config)


def _merge(into, values):
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and "name" not in value:
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def _steps(config, name):
    """The entries of all readers for a transform."""
    for reader in _READERS:
        whole = config.get(reader)
        for part in ("sample_transforms", "batch_transforms"):
            for step in (whole.get(part) if isinstance(whole, dict) else None) or []:
                if isinstance(step, dict) and name in step:
                    yield step


def _in_order(steps):
    """Transforms of an evaluation: resized by MMDetection's rule, and that before they are normalised."""
    made, normalising = [], []
    for step in steps:
        given = step.get("Resize")
        if isinstance(given, dict) and given.get("keep_ratio"):
            step = {"ResizeOfMMDet": {"target_size": given.get("target_size")}}
        (normalising if "NormalizeImage" in step else made).append(step)
    last = max((i for i, step in enumerate(made) if set(step) & {"Resize", "ResizeOfMMDet", "Pad"}), default=0)
    return [*made[: last + 1], *normalising, *made[last + 1 :]]


def _of_size(reader, size):
    """Let a reader bring images to a size, and pad those to a square that are."""
    for step in reader["sample_transforms"]:
        if "ResizeOfMMDet" in step:
            step["ResizeOfMMDet"] = {"target_size": size}
        given = step.get("Pad")
        if isinstance(given, dict) and given.get("size"):
            step["Pad"] = {**given, "size": [size[-1]] * 2}
            if (reader.get("inputs_def") or {}).get("image_shape"):
                reader["inputs_def"] = {**reader["inputs_def"], "image_shape": [3, *step["Pad"]["size"]]}


def _changes(before, after, path=""):
    found = []
    for key, value in after.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            found += _changes(before[key], value, f"{here}.")
        elif key not in before or before[key] != value:
            if not isinstance(value, (dict, list)):
                found.append(f"{here}: {value}" + (f", was {before[key]}" if key in before else ""))
            elif key in _READERS or path.rstrip(".") in _READERS:
                found.append(f"{path.rstrip('.') or key}: images are normalised as there")
    return list(dict.fromkeys(found))


def _resnet(state, told):
    first = state["backbone.layer1.0.conv2.weight"]
    groups = len(first) // first.shape[1]
    found = {"variant": "a" if told.caffe else "b", "groups": groups, "base_width": len(first) // groups}
    stages = {int(m[1]) - 1 for k in state if (m := re.match(r"backbone\.layer(\d)\..*conv_offset", k))}
    if groups == 1:
        found["base_width"] = 64
    return {**found, "dcn_v2_stages": sorted(stages) or [-1]}


def _neck(kind, state, told):
    # Behind one output for each lateral map come the extra levels; necks of two stages and of SOLO have none.
    extra = state.get(f"neck.fpn_convs.{_count(state, _LATERAL)}.conv.weight")
    found = {}
    if extra is not None:
        said = within(told.model, "neck")
        found["use_c5"] = bool(extra.shape[1] != len(extra))
        found["relu_before_extra_convs"] = bool(said.get("relu_before_extra_convs", kind == "FCOS" and not said))
    found["norm_type"] = "gn" if "neck.lateral_convs.0.gn.weight" in state else None
    return found


def _tower(state, told, place):
    """Layers, channels and group norms of a head's towers."""
    norm = f"{place}.cls_convs.0.gn.weight" in state
    groups = _whole(within(told.model, place, "norm_cfg").get("num_groups"), _USUAL_GROUPS)
    return {
        "stacked_convs": _count(state, rf"{place}\.cls_convs\.(\d+)\."),
        "feat_channels": len(state[f"{place}.cls_convs.0.conv.weight"]),
        "norm_groups": groups if norm else 0,
    }


def _solo(state, told, decoupled):
    names = sorted(k for k in state if re.search(r"conv_mask_list(_x)?\.\d+\.weight", k))
    grids = [len(state[name]) if decoupled else round(len(state[name]) ** 0.5) for name in names]
    test, head = told.test(), within(told.model, "mask_head")
    said = {"score_threshold": test.get("score_thr"), "mask_threshold": test.get("mask_thr"),
            "cls_down_index": head.get("cls_down_index"), "strides": head.get("strides")}  # fmt: skip
    ending = {"nms_top_k": test.get("nms_pre"), "keep_top_k": test.get("max_per_img"), "sigma": test.get("sigma"),
              "score_threshold": test.get("filter_thr"), "kernel": test.get("kernel")}  # fmt: skip
    nms = {"nms": {"name": "SOLOMatrixNMS", **_given(ending)}} if _given(ending) else {}
    return {**_tower(state, told, "mask_head"), "num_grids": grids, **_given(said), **nms}


def _whole(value, usual):
    return value if type(value) is int and value > 0 else usual


def _given(values):
    return {key: value for key, value in values.items() if value is not None}


def _count(state, pattern):
    return 1 + max((int(m[1]) for name in state if (m := re.match(pattern, name))), default=-1)
