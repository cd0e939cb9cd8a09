"""What to compute from the golden fixtures of RTMDet: a detector in several kinds of files; see `report`."""

import contextlib

import numpy as np
import paddle

from ppkd.bridge.workspace import import_ppdet
from ppkd.detectors.recorders import Recorder
from ppkd.engine.model import DistillModel
from ppkd.errors import UserError
from ppkd.files.foreign import rtmdet_arrays, rtmdet_name, take_weights
from ppkd.recipe.plan import TEACHER, Plan, TermSpec
from tests.golden.check.report import relative_error
from tests.golden.check.rtmdet_head import (
    assigner,
    build_head,
    detections,
    head_loss,
    losses,
    post_processing,
    same_detections,
    truth,
)

OUTPUT = 1e-4
# Of the gradients of a whole step.
STEP = 1e-2
# In train mode a batch norm may see no more than a dozen values, and what float32 can resolve depends on them. It is
# measured: float64 with every weight and pixel off by up to half of float32's last digit. A float32 run rounds every
# layer besides, and came to 1 to 5 times that.
_HALF_DIGIT, _ROUNDINGS, _FLOOR = 2.0**-24, 10, 1e-5
_STEM = "backbone.stem.0.conv.weight"
_LAYERS = {
    "stage1_main_conv": "backbone.stage1.1.main_conv", "stage1_short_conv": "backbone.stage1.1.short_conv",
    "stage1_blocks": "backbone.stage1.1.blocks", "stage1_attention": "backbone.stage1.1.attention",
    "stage1": "backbone.stage1", "stage4_spp": "backbone.stage4.1", "neck_reduce2": "neck.reduce_layers.2",
    "neck_top_down0": "neck.top_down_layers.0", "neck_top_down1": "neck.top_down_layers.1",
    "neck_down0": "neck.downsample_layers.0", "neck_bottom_up0": "neck.bottom_up_layers.0",
    "neck_bottom_up1": "neck.bottom_up_layers.1", "neck_out0_conv": "neck.out_layers.0.conv",
    "neck_out1_conv": "neck.out_layers.1.conv", "neck_out2_conv": "neck.out_layers.2.conv",
}  # fmt: skip
# Mean and deviation of red, green and blue, as configs/rtmdet has them.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def rtmdet(case):
    """Everything that is stored in one file."""
    for begin, runner in _KINDS.items():
        if case.path.stem.startswith(begin):
            yield from runner(case)
            return


def _build(hyper):
    import_ppdet()
    from ppkd.models.rtmdet import CSPNeXt, CSPNeXtPAFPN, RTMDet

    depth, width = hyper["deepen_factor"], hyper["widen_factor"]
    backbone = CSPNeXt(depth, width)
    neck = CSPNeXtPAFPN(**CSPNeXtPAFPN.from_config({}, backbone.out_shape), depth_mult=depth, width_mult=width)
    return RTMDet(backbone, neck, build_head(hyper["num_classes"], neck.out_shape[0].channels))


def _load(model, arrays):
    missing, unexpected = model.set_state_dict(arrays)
    if missing or unexpected:
        raise UserError(f"the converted weights lack {missing[:3]} and have {unexpected[:3]} too many")


def _stored(case):
    return rtmdet_arrays({k.removeprefix("param_"): case[k] for k in case.names if k.startswith("param_")})


def _images(array):
    """Images in the order of colours that is ours."""
    return paddle.to_tensor(np.ascontiguousarray(array[:, ::-1]))


def _outputs(model, images):
    """``backbone_0``, ..., ``reg_2`` -> tensor."""
    body = model.backbone({"image": images})
    neck = model.neck(body)
    parts = {"backbone": body, "neck": neck, **dict(zip(("cls", "reg"), model.head(neck)))}
    return {f"{part}_{i}": x for part, maps in parts.items() for i, x in enumerate(maps)}


def _compared(case, begin, outputs, tolerance, note=""):
    for name, ours in outputs.items():
        if f"{begin}{name}" in case:
            yield "value", f"{begin}{name}{note}", np.asarray(ours), case[f"{begin}{name}"], tolerance


def _model(case):
    model, arrays = _build(case.hyper), _stored(case)
    _load(model, arrays)
    for path in sorted(case.path.parent.glob(f"rtmdet_{case.path.stem.removeprefix('model_')}*.pth")):
        converted = take_weights(str(path), model)
        for name, array in arrays.items():
            yield "extra", f"{path.name} {name}", converted[name], array, 0.0
    images = _images(case["in_images"])
    model.eval()
    with paddle.no_grad(), Recorder(model, _LAYERS.values()) as recorder:
        outputs = _outputs(model, images)
    yield from _compared(case, "out_eval_", outputs, OUTPUT)
    for name, path in _LAYERS.items():
        if f"extra_eval_{name}" in case:
            yield "extra", name, recorder.outputs[path][0][:1].numpy(), case[f"extra_eval_{name}"], OUTPUT
    exact, limits = _resolution(case, arrays, images)
    yield from _compared(case, "out_train_", exact, OUTPUT, " in float64")
    model.train()
    with _counted(model) as counts:
        outputs = _outputs(model, images)
    for name, ours in outputs.items():
        yield from _compared(case, "out_train_", {name: ours}, limits[name])
    if "out_after_running" in case:
        yield from _statistics(case, model, arrays, counts, limits)
    if "in_gt_rows" in case:
        _load(model, arrays)
        yield from _step(case, model, images)


def _resolution(case, arrays, images):
    """In train mode without float32's rounding: outputs, and for each of them and each statistic what float32 may be
    off by."""
    plain, shaken = (_in_float64(case, arrays, images, shake) for shake in (0.0, _HALF_DIGIT))
    limits = {name: _FLOOR + _ROUNDINGS * relative_error(shaken[name], x) for name, x in plain.items()}
    return {name: x for name, x in plain.items() if name not in arrays}, limits


def _in_float64(case, arrays, images, shake):
    """Outputs and running statistics by name; every weight and pixel is changed by up to `shake` of itself."""
    model, draw = _build(case.hyper), np.random.default_rng(0)
    _load(model, arrays)
    model.to(dtype="float64")
    model.train()
    images = images.astype("float64")
    if shake:
        for x in (images, *model.parameters()):
            x.set_value(x * paddle.to_tensor(1 + shake * draw.uniform(-1, 1, x.shape)))
    found = _outputs(model, images)
    found |= {name: x for name, x in model.state_dict().items() if name.endswith(("_mean", "_variance"))}
    return {name: x.numpy() for name, x in found.items()}


@contextlib.contextmanager
def _counted(model):
    """Yields path of a batch norm -> how many values of a channel it has seen."""
    norms = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)}
    counts = {}
    with Recorder(model, norms) as recorder:
        yield counts
    for name, ((x,),) in recorder.inputs.items():
        counts[name] = x.shape[0] * x.shape[2] * x.shape[3]


def _statistics(case, model, before, counts, limits):
    """Running means and variances after a step; PyTorch adds the variance with n - 1, Paddle on the CPU that with n."""
    names = [k.removeprefix("param_") for k in case.names if k.startswith("param_") and "running" in k]
    after, start = {k: v.numpy() for k, v in model.state_dict().items()}, 0
    for name in names:
        ours, old = after[rtmdet_name(name)], before[rtmdet_name(name)]
        reference = case["out_after_running"][start : start + len(ours)]
        start += len(ours)
        if name.endswith("var"):
            count = counts[rtmdet_name(name).rpartition(".")[0]]
            ours = 0.9 * old + (ours - 0.9 * old) * count / (count - 1)
        yield "extra", name, ours, reference, limits[rtmdet_name(name)]


def _step(case, model, images):
    found = model({"image": images, **truth(case["in_gt_rows"], len(images))})
    found["loss"].backward()
    for name in ("loss_cls", "loss_bbox"):
        yield "value", name, found[name], case[f"out_{name}"], OUTPUT
    gradients = _gradients(model)
    for name, norm, total in zip(case["extra_grad_names"], case["extra_grad_l2"], case["extra_grad_sum"]):
        ours = gradients[rtmdet_name(name)]
        yield "gradient", f"{name} (norm)", np.linalg.norm(ours.astype("float64")), norm, STEP
        scale = np.abs(ours).sum() or 1.0
        yield "gradient", f"{name} (sum)", 1 + (ours.sum(dtype="float64") - total) / scale, 1.0, STEP
        if f"grad_param_{name}" in case:
            yield "gradient", name, ours, case[f"grad_param_{name}"], STEP


def _gradients(model):
    found = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return found | {_STEM: found[_STEM][:, ::-1]}


def _trained(case):
    model = _build(case.hyper)
    _load(model, take_weights(str(case.path.with_suffix(".pth")), model))
    model.eval()
    yield from _compared(case, "out_", _outputs(model, _images(case["in_images"])), OUTPUT)


def _whole(case):
    """From letterboxed images to boxes, with the weights of ``model_main``."""
    main = type(case)(case.path.with_name("model_main.npz"))
    model = _build(main.hyper)
    _load(model, _stored(main))
    model.eval()
    mean, std = (np.array(x, "float32").reshape(1, 3, 1, 1) for x in (_MEAN, _STD))
    for i in range(5):
        image = case[f"out_letterbox_{i}"] if f"out_letterbox_{i}" in case else case[f"in_image_{i}"]
        rgb = image[None, :, :, ::-1].transpose(0, 3, 1, 2).astype("float32")
        with paddle.no_grad():
            features = model.neck(model.backbone({"image": paddle.to_tensor((rgb - mean) / std)}))
            classes, distances = model.head(features)
        for level, (a, b) in enumerate(zip(classes, distances)):
            yield "value", f"cls_{i}_{level}", a, case[f"extra_cls_{i}_{level}"], OUTPUT
            yield "value", f"reg_{i}_{level}", b, case[f"extra_reg_{i}_{level}"], OUTPUT
        boxes, scores = model.head.decode(classes, distances)
        size = np.array([case[f"in_image_{i}"].shape[:2]])
        ratios, pads = (case[f"out_{name}_{i}"][None] for name in ("scale_factor", "pad_param"))
        (rows,) = detections(model.head, boxes, scores, ratios, pads, size)
        yield from same_detections(case, i, rows, 0.2, 1e-3)


def _distillation(case):
    path = str(case.path.with_name("kd_checkpoint.pth"))
    student, teacher = (_build(case.hyper[part]) for part in ("student", "teacher"))
    for part, model in (("student", student), (TEACHER, teacher)):
        arrays = take_weights(path, model, part)
        _load(model, arrays)
        if part == "student":
            yield from _sums(case, arrays)
        model.eval()
        yield from _compared(case, f"out_{part}_", _outputs(model, _images(case["in_images"])), OUTPUT)
    neck = TermSpec(
        "fpn", "neck.conv[*]", "neck.conv[*]", {"name": "cwd", "tau": case.hyper["tau"]},
        [{"name": "align", "always": True, "bias": False}, "standardise"], "standardise", case.hyper["loss_weight"],
    )  # fmt: skip
    model = DistillModel(student, {TEACHER: teacher}, Plan([neck]))
    model.train()
    batch = {"image": _images(case["in_images"]), **truth(case["in_gt_rows"], len(case["in_images"]))}
    connectors = [next(iter(term.connect_student.parameters())) for term in model.terms]
    keys = [f"distiller.connectors.fpn{i}_s.conv_module.conv.weight" for i in range(3)]
    for connector, array in zip(connectors, _connectors(path, keys)):
        connector.set_value(array)
    before = {name: x.numpy() for name, x in student.state_dict().items()}
    for kind in ("total", "distill"):
        _load(student, before)
        found = model(batch)
        terms = [found[term.label] for term in model.terms]
        (found["loss"] if kind == "total" else paddle.add_n(terms)).backward()
        for i, term in enumerate(terms):
            yield "value", f"loss_fpn{i}", term, case[f"out_distill.loss_fpn{i}"], OUTPUT
        for name in ("loss_cls", "loss_bbox"):
            yield "value", name, found[name], case[f"out_student.{name}"], OUTPUT
        gradients = _gradients(student) | {key: x.grad.numpy() for key, x in zip(keys, connectors)}
        for name in [x for x in case.names if x.startswith(f"grad_{kind}_")]:
            ours = gradients[name.removeprefix(f"grad_{kind}_").removeprefix("architecture.")]
            yield "gradient", name, ours, case[name], STEP
        model.clear_gradients()


def _connectors(path, keys):
    from ppkd.files.torch_files import read_torch

    state = read_torch(path)["state_dict"]
    return [state[key].numpy() for key in keys]


def _sums(case, arrays):
    """That the student is the official converter's, tensor by tensor; what levels share is there several times."""
    for key, total, size in zip(case["out_student_keys"], case["out_student_sum"], case["out_student_abs_sum"]):
        if not key.endswith("num_batches_tracked"):
            ours = arrays[rtmdet_name(str(key))].astype("float64")
            yield "extra", f"{key} (sum)", (ours.sum(), np.abs(ours).sum()), (total, size), 1e-9


_KINDS = {
    "model_": _model, "rtmdet_train": _trained, "post_": post_processing, "preprocess": _whole, "assigner_": assigner,
    "losses": losses, "head_loss": head_loss, "kd": _distillation,
}  # fmt: skip
