"""What a config has to say so that weights of MMDetection give here what they gave there.

Most of it can be seen in the tensors; a file's own notes, the text of its config and the name of its run, tell the
style of the ResNet and how images are normalised. The rest is MMDetection's way of choosing detections.
"""

import copy
import os
import re
from dataclasses import dataclass

# Red, green, blue.
_IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
# Of the ResNets that Detectron trained, as FCOS and as all others take them.
_CAFFE = {"FCOS": [122.7717, 115.9465, 102.9801]}
_CAFFE_MEAN, _ONES = [123.675, 116.28, 103.53], [1.0, 1.0, 1.0]
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
# Least score, IoU from which on NMS suppresses, most detections.
_CHOICE = {"GFL": (0.05, 0.6, 100), "YOLOX": (0.01, 0.65, -1)}
_PROPOSALS = {"min_size": 0.0, "nms_thresh": 0.7, "pre_nms_top_n": 1000, "post_nms_top_n": 1000}
_TEST = re.compile(
    r"score_thr\s*=\s*([\d.e-]+)\s*,\s*nms\s*=\s*dict\(\s*type\s*=\s*'nms'\s*,\s*iou_thr(?:eshold)?\s*=\s*([\d.]+)\s*\)"
    r"(?:\s*,\s*max_per_img\s*=\s*(\d+))?"
)


@dataclass
class Told:
    """What a file's notes say.

    Attributes:
        text: of its config, or empty.
        names: of its run and of the file, in lower case.
        version: of MMDetection, or empty.
        classes: their names, or None.
    """

    text: str
    names: str
    version: str
    classes: list | None

    @classmethod
    def of(cls, tree, path):
        """Of what a file holds; notes of another form than they should have are none."""
        meta = tree.get("meta") if isinstance(tree, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        text = next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")
        names = [os.path.basename(path), *(str(meta.get(key, "")) for key in ("exp_name", "experiment_name"))]
        noted = meta.get("dataset_meta")
        classes = meta.get("CLASSES") or (noted.get("classes") if isinstance(noted, dict) else None)
        known = isinstance(classes, (list, tuple)) and all(isinstance(name, str) for name in classes)
        version = str(meta.get("mmdet_version", ""))
        return cls(text, " ".join(names).lower(), version, list(classes) if known and classes else None)

    @property
    def caffe(self):
        """Whether the ResNet is Detectron's: its stride in the first convolution of a block, its images blue first."""
        said = re.search(r"\bstyle\s*=\s*'(\w+)'", self.text)
        return said[1] == "caffe" if said else "caffe" in self.names

    @property
    def style_is_known(self):
        """Whether anything says so, or MMDetection's names for its runs, which would."""
        return "style" in self.text or re.search(r"[rx](18|34|50|101|152)(?!\d)", self.names) is not None

    @property
    def blue_first(self):
        """Whether the images are blue, green, red."""
        said = re.search(r"\b(?:to_rgb|bgr_to_rgb)\s*=\s*(True|False)", self.text)
        return said[1] == "False" if said else self.caffe

    def normalisation(self, kind):
        """Mean and deviation of red, green, blue, of pixels from 0 to 255."""
        given = [re.search(rf"\b{key}\s*=\s*\[([^\]]+)\]", self.text) for key in ("mean", "std")]
        if all(given):
            mean, std = ([float(x) for x in match[1].split(",")] for match in given)
            return (mean[::-1], std[::-1]) if self.blue_first else (mean, std)
        return (_CAFFE.get(kind, _CAFFE_MEAN), _ONES) if self.caffe else _IMAGENET

    def says(self, key, name=None):
        """Whether the config's text has ``key=True``, or the run's name has `name`."""
        said = re.search(rf"\b{key}\s*=\s*(True|False)", self.text)
        return said[1] == "True" if said else bool(name) and name in self.names

    def choice(self, kind):
        """``(least score, IoU, most)`` of its detections."""
        score, iou, most = _CHOICE.get(kind, (0.05, 0.5, 100))
        said = _TEST.search(self.text)
        return (float(said[1]), float(said[2]), int(said[3] or most)) if said else (score, iou, most)


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
        found |= {"ResNet": _resnet(state, told), "FPN": _neck(kind, state)}
    if kind == "FCOS":
        found["architecture"] = "FCOSOfMMDet"
        found["FCOSOfMMDet"] = found.pop("FCOS")
        head |= {
            "norm_reg_targets": told.says("norm_on_bbox", "normbbox"),
            "centerness_on_reg": told.says("centerness_on_reg", "normbbox"),
        }
    if kind in ("FCOS", "GFL", "RetinaNet"):
        head["fcos_feat" if kind == "FCOS" else "conv_feat"] = {
            "num_convs": _count(state, r"bbox_head\.cls_convs\.(\d+)\."),
            "norm_type": "gn" if "bbox_head.cls_convs.0.gn.weight" in state else None,
        }
    if kind == "GFL":
        head["reg_max"] = len(state["bbox_head.gfl_reg.weight"]) // 4 - 1
    if kind == "RepPoints":
        head |= {"nms_pre": 1000, "stacked_convs": _count(state, r"bbox_head\.cls_convs\.(\d+)\.")}
    if kind == "SOLO":
        decoupled = "mask_head.conv_mask_list_x.0.weight" in state  # a map a row and one a column
        names = sorted(k for k in state if re.search(r"conv_mask_list(_x)?\.\d+\.weight", k))
        grids = [len(state[name]) if decoupled else round(len(state[name]) ** 0.5) for name in names]
        own = "DecoupledSOLOHead" if decoupled else "SOLOHead"
        found["SOLO"]["head"] = own
        found[own] = {"stacked_convs": _count(state, r"mask_head\.cls_convs\.(\d+)\."), "num_grids": grids}
    if "RCNN" in kind:
        found["RPNHeadOfMMDet"] = {"test_proposal": dict(_PROPOSALS)}
        found["BBoxPostProcess"] = {"nms": {**chosen, "nms_threshold": iou}}
        aligned = {"sampling_ratio": 0, "aligned": not told.version.startswith("1.")}
        box = found["CascadeHeadOfMMDet" if kind == "CascadeRCNN" else "BBoxHead"] = {"roi_extractor": aligned}
        if kind == "CascadeRCNN":
            box["bbox_weight"] = _STAGES
            found["BBoxPostProcess"]["decode"] = {"name": "RCNNBox", "prior_box_var": _STAGES[-1]}
        if any(name.startswith("roi_head.mask_head.") for name in state):
            # A head of its own finds the masks of a cascade, of all of its stages.
            found["CascadeMaskHeadOfMMDet" if kind == "CascadeRCNN" else "MaskHead"] = {"roi_extractor": dict(aligned)}
    return {name: keys for name, keys in found.items() if keys}


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
    for step in _steps(config, "Gt2FCOSTarget"):
        head = config.get("FCOSHeadOfMMDet") or {}
        if step["Gt2FCOSTarget"]:
            step["Gt2FCOSTarget"]["norm_reg_targets"] = head.get("norm_reg_targets", False)
    for step in _steps(config, "Gt2SOLOTarget"):
        grids = found[found["SOLO"]["head"]]["num_grids"]
        step["Gt2SOLOTarget"] = {**(step["Gt2SOLOTarget"] or {}), "num_grids": grids}
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


def _neck(kind, state):
    last = state.get("neck.fpn_convs.3.conv.weight")
    found = {}
    if last is not None:
        found["use_c5"] = bool(last.shape[1] != len(last))
        found["relu_before_extra_convs"] = kind == "FCOS"
    if "neck.lateral_convs.0.gn.weight" in state:
        found["norm_type"] = "gn"
    return found


def _count(state, pattern):
    return 1 + max((int(m[1]) for name in state if (m := re.match(pattern, name))), default=-1)
