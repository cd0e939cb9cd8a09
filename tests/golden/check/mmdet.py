"""What to compute from the golden fixtures of MMDetection's checkpoints: every stage of a small detector; see `report`.

ppdet's backbones have the widths of their paper. The fixtures' are narrower: the tensors of a model of ours are
replaced by those of the file, of whatever size they are.
"""

import contextlib

import numpy as np
import paddle

from ppkd.bridge.workspace import build_detector, import_ppdet
from ppkd.files.convert import compare
from ppkd.files.mmdet import backbone_arrays, take
from ppkd.files.torch_files import read_torch
from ppkd.recipe.recipe import load_recipe
from tests.conftest import ROOT
from tests.golden.check.heads import same_detections
from tests.golden.check.report import GoldenError

OUTPUT = 1e-4
_CONFIGS = {
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco", "fcos": "fcos/fcos_r50_fpn_1x_coco",
    "gfl": "gfl/gfl_r50_fpn_1x_coco", "faster": "faster_rcnn/faster_rcnn_r50_fpn_1x_coco",
    "mask": "mask_rcnn/mask_rcnn_r50_fpn_1x_coco", "cascade": "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco",
    "yolox": "yolox/yolox_s_300e_coco", "reppoints": "reppoints/reppoints_r50_fpn_gn_1x_coco",
    "solo": "solo/solo_r50_fpn_1x_coco",
}  # fmt: skip


def mmdet(case):
    """Backbone, neck and head of a detector, and what is found where post-processing is ours.

    Raises:
        GoldenError: a kind that is not converted.
    """
    kind = case.path.stem.split("_")[0]
    if kind in ("backbone", "fgd"):
        yield from (_backbone if kind == "backbone" else _distiller)(case)
        return
    if kind not in _CONFIGS:
        raise GoldenError(f"{case.path}: {kind} is not converted")
    model = None
    for name in case.meta["checkpoints"]:
        state = {k: v.numpy() for k, v in read_torch(str(case.path.with_name(name)))["state_dict"].items()}
        model = _filled(case.hyper, kind, state)
    # MMDetection's YOLOX sees blue, green, red; what is converted sees red, green, blue.
    images = case["in_images"][:, ::-1] if kind == "yolox" else case["in_images"]
    images = paddle.to_tensor(np.ascontiguousarray(images))
    with paddle.no_grad():
        body = model.backbone({"image": images})
        yield from _levels(case, "backbone", body, len(case.numbered("out_backbone_")) - len(body))
        neck = model.neck(body)
        if kind == "yolox":  # its last convolutions are the head's
            yield from _levels(case, "neck", [conv(x) for conv, x in zip(model.head.stem_conv, neck)])
        else:
            yield from _levels(case, "neck", neck)
        yield from _HEADS[kind](case, model, neck)


def _backbone(case):
    """A ResNeXt with deformable convolutions."""
    hyper = case.hyper
    import_ppdet()
    from ppdet.modeling.backbones.resnet import ResNet

    stages = [k for k, has in enumerate(hyper["stage_with_dcn"]) if has]
    with _stages(hyper["stage_blocks"]):
        model = paddle.nn.Layer()
        model.backbone = ResNet(groups=hyper["groups"], base_width=4, dcn_v2_stages=stages)
    (name,) = case.meta["checkpoints"]
    state = {k: v.numpy() for k, v in read_torch(str(case.path.with_name(name)))["state_dict"].items()}
    _fill(model, backbone_arrays(state, model))
    with paddle.no_grad():
        yield from _levels(case, "backbone", model.backbone({"image": paddle.to_tensor(case["in_images"])}))


def _distiller(case):
    """Both detectors of FGD's checkpoint."""
    for part in ("student", "teacher"):
        hyper = {"num_classes": case.hyper["num_classes"], "test_cfg": None, **case.hyper[part]}
        groups = hyper.get("groups")
        hyper["backbone"] = {"style": "pytorch", "groups": groups}
        hyper["neck"] = {"add_extra_convs": "on_input"}
        whole = read_torch(str(case.path.with_suffix(".pth")))["state_dict"]
        state = {k.removeprefix(f"{part}."): v.numpy() for k, v in whole.items() if k.startswith(f"{part}.")}
        model = _filled(hyper, "retinanet", state)
        if part == "student":
            for key, total, size in zip(*(case[f"out_student_{x}"] for x in ("keys", "sum", "abs_sum"))):
                array = state[str(key)].astype("float64")
                yield "extra", f"{key} (sum)", (array.sum(), np.abs(array).sum()), (total, size), 1e-9
        with paddle.no_grad():
            outputs = model.head(model.neck(model.backbone({"image": paddle.to_tensor(case["in_images"])})))
        for name, maps, each in (("cls", outputs[0], case.hyper["num_classes"]), ("reg", outputs[1], 4)):
            for k, x in enumerate(maps):
                yield "value", f"{part}_{name}_{k}", _by_ratio(x, each), case[f"out_{part}_{name}_{k}"], OUTPUT


def _by_ratio(x, each):
    """A map in MMDetection's order of anchors; each has so many channels."""
    batch, _, *size = x.shape
    return x.reshape([batch, 3, 3, each, *size]).transpose([0, 2, 1, 3, 4, 5]).reshape([batch, -1, *size])


def _filled(hyper, kind, state):
    with _stages(hyper["stage_blocks"] or [3, 4, 6, 3]):
        recipe = load_recipe(str(ROOT / "configs" / f"{_CONFIGS[kind]}.yml"), overrides=_overrides(kind, hyper))
        model = build_detector(recipe.student)
    _fill(model, take(state, model)[1])
    return model


def _fill(model, arrays):
    _resize(model, arrays)
    fit = compare(arrays, model)
    assert fit.complete, fit
    model.set_state_dict(arrays)
    model.eval()


def _overrides(kind, hyper):
    if kind == "yolox":
        return [f"num_classes={hyper['num_classes']}", "pretrain_weights=null"]
    backbone, neck, test = hyper["backbone"], hyper["neck"], hyper["test_cfg"]
    ours = {"num_classes": hyper["num_classes"], "pretrain_weights": "null"}
    ours["ResNet.variant"] = "a" if backbone["style"] == "caffe" else "b"
    ours["ResNet.groups"], ours["ResNet.base_width"] = backbone["groups"] or 1, 4 if backbone["groups"] else 64
    ours["FPN.use_c5"] = str(neck["add_extra_convs"] == "on_input").lower()
    if kind in ("fcos", "gfl"):
        ours[f"{kind.upper()}Head.{'fcos' if kind == 'fcos' else 'conv'}_feat.num_convs"] = 1
        ours[f"{kind.upper()}Head.{'fcos' if kind == 'fcos' else 'conv'}_feat.norm_type"] = "gn"
    if kind == "fcos":
        ours |= {"FCOSHead.norm_reg_targets": "false", "FCOSHead.centerness_on_reg": "false"}
    if kind in ("gfl", "retinanet"):
        ours["FPN.relu_before_extra_convs"] = "false"
    if kind in ("faster", "mask", "cascade"):
        finest = int(hyper["changes"].get("roi_head.bbox_roi_extractor.finest_scale", 56))
        head = "CascadeHead" if kind == "cascade" else "BBoxHead"
        extractor = f"resolution: 7, sampling_ratio: 0, aligned: true, canonical_size: {4 * finest}"
        ours[f"{head}.roi_extractor"] = f"{{{extractor}}}"
    if kind == "reppoints":
        ours["RepPointsHead.stacked_convs"] = 1
        ours["RepPointsHead.nms"] = f"{{name: MultiClassNMS, nms_top_k: -1, keep_top_k: {test['max_per_img']}, " \
            f"score_threshold: {test['score_thr']}, nms_threshold: {test['nms']['iou_threshold']}}}"
    if kind == "solo":
        ours |= {"SOLOHead.stacked_convs": 1, "SOLOHead.num_grids": "[6, 5, 4, 3, 2]"}
        ours["SOLOHead.nms"] = f"{{name: SOLOMatrixNMS, keep_top_k: {test['max_per_img']}}}"
    return [f"{key}={value}" for key, value in ours.items()]


@contextlib.contextmanager
def _stages(blocks):
    """ppdet's ResNet-50 with so many blocks in its stages."""
    import_ppdet()
    from ppdet.modeling.backbones import resnet

    before = resnet.ResNet_cfg[50]
    resnet.ResNet_cfg[50] = list(blocks)
    try:
        yield
    finally:
        resnet.ResNet_cfg[50] = before


def _resize(model, arrays):
    for path, layer in model.named_sublayers(include_self=True):
        for own, parameter in list(layer._parameters.items()):
            array = arrays.get(f"{path}.{own}" if path else own)
            if parameter is not None and array is not None and list(array.shape) != list(parameter.shape):
                layer._parameters[own] = layer.create_parameter(list(array.shape))


def _levels(case, part, maps, skipped=0):
    for k, x in enumerate(maps):
        yield "value", f"{part}_{k}", x, case[f"out_{part}_{k + skipped}"], OUTPUT


def _retina(case, model, neck):
    classes, boxes = model.head(neck)
    for name, maps, each in (("cls", classes, case.hyper["num_classes"]), ("reg", boxes, 4)):
        for k, x in enumerate(maps):
            yield "value", f"{name}_{k}", _by_ratio(x, each), case[f"out_{name}_{k}"], OUTPUT
    anchors = model.head.anchor_generator(classes)
    for k, own in enumerate(anchors):
        own = own.reshape([-1, 3, 3, 4]).transpose([0, 2, 1, 3]).reshape([-1, 4])
        yield "extra", f"priors_{k}", own, case[f"extra_priors_{k}"], OUTPUT


def _fcos(case, model, neck):
    _, classes, boxes, centres = model.fcos_head(neck)
    yield from _levels(case, "cls", classes)
    yield from _levels(case, "reg", boxes)
    yield from _levels(case, "ctr", centres)


def _gfl(case, model, neck):
    head = model.head
    for k, (x, scale) in enumerate(zip(neck, head.scales_regs)):
        classes, boxes = head.conv_feat(x)
        yield "value", f"cls_{k}", head.gfl_head_cls(classes), case[f"out_cls_{k}"], OUTPUT
        yield "value", f"reg_{k}", scale(head.gfl_head_reg(boxes)), case[f"out_reg_{k}"], OUTPUT


def _yolox(case, model, neck):
    head = model.head
    for k, x in enumerate(neck):
        x = head.stem_conv[k](x)
        boxes = head.conv_reg[k](x)
        for name, own in (("cls", head.conv_cls[k](x)), ("reg", boxes[:, :4]), ("obj", boxes[:, 4:])):
            yield "value", f"{name}_{k}", own, case[f"out_{name}_{k}"], OUTPUT


def _reppoints(case, model, neck):
    outputs = model.head(neck)
    yield from _levels(case, "cls", outputs[0])
    yield from _levels(case, "box", [model.head.boxes(x) for x in outputs[2]])
    boxes, scores = model.head.decode(outputs, paddle.to_tensor([case["in_images"].shape[2:]]))
    rows, _, _ = model.head.nms(boxes, scores)
    stored = (case[f"out_det_{name}_0"] for name in ("boxes", "scores", "labels"))
    yield from same_detections("detections", rows.numpy(), *stored)


def _solo(case, model, neck):
    size = paddle.to_tensor(case["in_images"].shape[2:], dtype="int32")
    found, labels, scores = (x.numpy()[:-1] for x in model.head.detect(*model.head(neck), size, size))
    stored = [case[f"out_det_{name}_0"] for name in ("labels", "scores", "masks")]
    yield "value", "labels", labels, stored[0], 0.0
    yield "value", "scores", scores, stored[1], 2e-4
    yield "value", "masks (pixels that differ)", 1 + (found != stored[2]).mean(), 1.0, 1e-4


def _rpn(case, model, neck):
    head = model.rpn_head
    for k, x in enumerate(neck):
        x = head.rpn_feat([x])[0]
        yield "value", f"rpn_cls_{k}", head.rpn_rois_score(x), case[f"out_rpn_cls_{k}"], OUTPUT
        yield "value", f"rpn_reg_{k}", head.rpn_rois_delta(x), case[f"out_rpn_reg_{k}"], OUTPUT
    # What follows is made of the reference's own regions: which ones they are is a matter of post-processing.
    stages = range(3) if "out_stage0_rois" in case else [None]
    for stage in stages:
        prefix = "out_" if stage is None else f"out_stage{stage}_"
        rois = case[f"{prefix}rois"]
        regions = [paddle.to_tensor(rois[:, 1:])], paddle.to_tensor([len(rois)], dtype="int32")
        box = model.bbox_head
        pooled = box.roi_extractor(neck, *regions)
        if stage in (None, 0):
            yield "extra", f"roi_feat_{stage}", pooled[:2], case["out_roi_feat_first"], OUTPUT
        x = box.head(pooled) if stage is None else box.head(pooled, stage)
        score, delta = (box.bbox_score, box.bbox_delta) if stage is None else (
            box.bbox_score_list[stage], box.bbox_delta_list[stage])
        yield "value", f"{prefix}cls", score(x), case[f"{prefix}roi_cls"], OUTPUT
        yield "value", f"{prefix}reg", delta(x), case[f"{prefix}roi_reg"], OUTPUT


_HEADS = {
    "retinanet": _retina, "fcos": _fcos, "gfl": _gfl, "reppoints": _reppoints, "solo": _solo, "faster": _rpn,
    "mask": _rpn, "cascade": _rpn, "yolox": _yolox,
}  # fmt: skip
