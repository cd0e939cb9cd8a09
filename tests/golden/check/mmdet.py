"""What to compute from the golden fixtures of MMDetection's checkpoints: every stage of a small detector; see `report`.

ppdet's backbones have the widths of their paper. The fixtures' are narrower: the tensors of a model of ours are
replaced by those of the file, of whatever size they are.
"""

import contextlib

import numpy as np
import paddle
import paddle.nn.functional as F

from ppkd.bridge.workspace import build_detector, import_ppdet, scope
from ppkd.files.beside import adapt
from ppkd.files.fit import compare
from ppkd.files.foreign import look
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
        state, told = look(str(case.path.with_name(name)))
        model, config = _filled(case.hyper, kind, state, told)
    # Some of MMDetection's see blue, green, red; what is converted sees red, green, blue.
    blue_first = kind == "yolox" or told.blue_first
    images = case["in_images"][:, ::-1] if blue_first else case["in_images"]
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
        yield from found_in(case, model, images)
        yield from _from_pixels(case, model, config)


def found_in(case, model, images):
    """All that is found in the end, in the pixels of the input."""
    count = len(images)
    sizes = paddle.to_tensor([list(images.shape[2:])] * count, dtype="float32")
    batch = {"image": images, "im_shape": sizes, "scale_factor": paddle.ones([count, 2]), "im_id": paddle.arange(count)}
    yield from _compared(case, "det", model(batch), count)


def _from_pixels(case, model, config):
    """From an image as OpenCV reads it, through the transforms of the config, to boxes in its own pixels."""
    if "in_raw" not in case:
        return
    raw = np.ascontiguousarray(case["in_raw"][..., ::-1])
    scale = case.hyper["resize_scale"]
    with scope(config):
        steps = [create_step(step, scale) for step in config["EvalReader"]["sample_transforms"] if "Decode" not in step]
        batch = config["EvalReader"].get("batch_transforms") or []
    height, width = raw.shape[:2]
    sample = {"image": raw, "im_shape": np.array([height, width], "float32"), "scale_factor": np.ones(2, "float32"),
              "h": height, "w": width, "im_id": np.array([0])}  # fmt: skip
    for step in steps:
        sample = step(sample)
    image = sample["image"]
    if batch:
        stride = batch[0]["PadBatch"]["pad_to_stride"]
        image = np.pad(image, [(0, 0), *((0, -size % stride) for size in image.shape[1:])])
    yield "value", "scale factor", sample["scale_factor"][::-1], case["out_scale_factor"], 1e-6
    yield "value", "size of the input", image.shape[1:], case["out_input_shape"][-2:], 0.0
    batch = {name: paddle.to_tensor(sample[name][None].astype("float32")) for name in ("im_shape", "scale_factor")}
    batch |= {"image": paddle.to_tensor(image[None].astype("float32")), "im_id": paddle.to_tensor([0])}
    yield from _compared(case, "raw_det", model(batch), 1)


def create_step(step, scale):
    """A transform of a reader, with the fixture's size in place of 1333 by 800."""
    from ppdet.data import transform

    ((name, given),) = step.items()
    given = dict(given or {})
    if name in ("Resize", "ResizeOfMMDet", "Pad"):
        given["size" if name == "Pad" else "target_size"] = scale[::-1]
    return getattr(transform, name)(**given)


def _compared(case, prefix, outputs, count):
    if "segm" in outputs:  # of SOLO, which finds masks and no boxes
        # The last one stands for nothing found, so that a graph is never without one.
        found = [outputs[name].numpy()[:-1] for name in ("segm", "cate_label", "cate_score")]
        yield from _masks(case, prefix, *found)
        return
    rows, counts, begin = outputs["bbox"].numpy(), outputs["bbox_num"].numpy(), 0
    for i in range(count):
        own = rows[begin : begin + counts[i]]
        stored = [case[f"out_{prefix}_{name}_{i}"] for name in ("boxes", "scores", "labels")]
        yield from same_detections(f"{prefix}_{i}", own, *stored)
        if f"out_{prefix}_masks_{i}" in case and len(own) == len(stored[0]):
            masks = outputs["mask"].numpy()[begin : begin + counts[i]]
            gaps = np.abs(own[:, None, 2:] - stored[0]).max(axis=2) + 1e3 * (own[:, None, 0] != stored[2])
            wanted = case[f"out_{prefix}_masks_{i}"][gaps.argmin(axis=1)]
            yield "value", f"{prefix}_{i} masks (pixels that differ)", 1 + (masks != wanted).mean(), 1.0, 1e-3
        begin += counts[i]


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
        hyper["backbone"] = {"groups": groups}
        state, told = look(str(case.path.with_suffix(".pth")), part)
        model, _ = _filled(hyper, "retinanet", state, told)
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


def _filled(hyper, kind, state, told):
    """The model, its tensors replaced, and its config."""
    config = _adapted(kind, hyper, state, told)
    with _stages(hyper["stage_blocks"] or [3, 4, 6, 3]):
        model = build_detector(config)
    _fill(model, take(state, model, hyper["num_classes"], told.blue_first)[1])
    return model, config


def _fill(model, arrays):
    _resize(model, arrays)
    fit = compare(arrays, model)
    assert fit.complete, fit
    model.set_state_dict(arrays)
    model.eval()


def _adapted(kind, hyper, state, told):
    """The config that `ppkd.files.beside` makes of the checkpoint, with what the fixture has smaller than usual."""
    path = str(ROOT / "configs" / f"{_CONFIGS[kind]}.yml")
    config = load_recipe(path, overrides=[f"num_classes={hyper['num_classes']}", "pretrain_weights=null"]).student
    if kind == "cascade":
        config["CascadeRCNN"] |= {"mask_head": "CascadeMaskHeadOfMMDet", "mask_post_process": "MaskPostProcess"}
        config["CascadeMaskHeadOfMMDet"] = {"head": "MaskFeat", "roi_extractor": {"resolution": 14}}
        config["MaskFeat"] = {"num_convs": 4, "out_channel": 256}
    adapt(config, state, told)
    if hyper.get("groups") or (hyper.get("backbone") or {}).get("groups"):
        config["ResNet"]["base_width"] = 4  # the fixtures' widths are of a stem of two channels
    test = hyper["test_cfg"] or {}
    if "rpn" in test:
        config["RPNHeadOfMMDet"]["test_proposal"]["post_nms_top_n"] = test["rpn"]["max_per_img"]
        finest = int(hyper["changes"].get("roi_head.bbox_roi_extractor.finest_scale", 56))
        for name in ("BBoxHead", "CascadeHeadOfMMDet", "MaskHead", "CascadeMaskHeadOfMMDet"):
            if "roi_extractor" in (config.get(name) or {}):
                config[name]["roi_extractor"]["canonical_size"] = 4 * finest
    if kind == "solo":
        config["SOLOHead"]["nms"] = {"name": "SOLOMatrixNMS", "keep_top_k": test["max_per_img"]}
    return config


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
    from ppkd.models.solo.head import peaks  # a module of ppdet's

    masks, classes = model.head(neck)
    yield from _levels(case, "cls", [peaks(F.sigmoid(x)) for x in classes])
    fine = paddle.shape(masks[0])[2:]
    for k, x in enumerate(masks):
        cells = paddle.arange(x.shape[1])
        found = model.head.probabilities(x, paddle.zeros_like(cells), cells, k, fine)
        yield "value", f"mask_first_{k}", found[:10], case[f"out_mask_first_{k}"][0], OUTPUT
        yield "value", f"mask_sum_{k}", found.mean([1, 2]), case[f"out_mask_sum_{k}"][0] / found[0].size, OUTPUT


def _masks(case, prefix, found, labels, scores):
    """Masks of one image, in the order of their scores."""
    stored = [case[f"out_{prefix}_{name}_0"] for name in ("labels", "scores", "masks")]
    yield "value", f"{prefix} labels", labels, stored[0], 0.0
    yield "value", f"{prefix} scores", scores, stored[1], 2e-4
    yield "value", f"{prefix} masks (pixels that differ)", 1 + (found != stored[2]).mean(), 1.0, 1e-4


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
