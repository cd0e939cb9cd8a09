"""Every loss written out a second time, in float64, as slowly and as close to its definition as
possible: loops over images and boxes, softmax as exponentials over their sum, no identities.

Nothing is shared with ``ppkd``. Each function takes a seed and what the case is made of, and
returns the arrays of a fixture in the form that ``tests.golden.check.report`` describes.
"""

import json
import math
import zlib  # noqa: F401  Paddle 2.6 brings a zlib of its own: the system's must be loaded first

import numpy as np
import paddle
import paddle.nn.functional as F


class Fixture:
    """Float32 arrays to compute from, their float64 tensors, and what came of them."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.arrays = {}
        self.tensors = {}
        self.zero_gradients = []

    def add(self, name, array):
        """Store an input; what belongs to the student and all parameters get gradients."""
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.arrays[name] = array
        as_float = array.astype(np.float64) if array.dtype == np.float32 else array
        trained = name.startswith(("in_student", "param_"))
        self.tensors[name] = paddle.to_tensor(as_float, stop_gradient=not trained)
        return self.tensors[name]

    def normal(self, name, *shape, scale=1.0):
        return self.add(name, self.random.standard_normal(shape) * scale)

    def pair(self, *shape):
        """A student and a teacher that resemble each other."""
        teacher = self.random.standard_normal(shape)
        student = teacher + 0.5 * self.random.standard_normal(shape)
        return self.add("in_student", student), self.add("in_teacher", teacher)

    def finish(self, loss, hyper, terms=None, extras=None):
        """Differentiate ``loss``; the arrays of the npz."""
        loss.sum().backward()
        out = dict(self.arrays)
        out["out_loss"] = loss.numpy()
        for name, term in (terms or {}).items():
            out[f"out_terms_{name}"] = np.float64(term)
        for name, extra in (extras or {}).items():
            out[f"extra_{name}"] = np.asarray(extra, np.float32)
        for name, tensor in self.tensors.items():
            if not tensor.stop_gradient:
                kept = "grad_" + name.removeprefix("in_")
                out[kept] = tensor.gradient().astype(np.float32)
        for name in self.zero_gradients:
            out[f"grad_{name}"][:] = 0
        self.arrays = out
        return self.describe(hyper)

    def describe(self, hyper):
        """The arrays with their ``meta``."""
        meta = np.array([json.dumps({"source": "tests/golden", "hyper": hyper})])
        return {**self.arrays, "meta": meta}


def softmax(x, axis):
    return x.exp() / x.exp().sum(axis=axis, keepdim=True)


def kl(student, teacher, tau, axis):
    p, q = softmax(teacher / tau, axis), softmax(student / tau, axis)
    return (p * (p / q).log()).sum(axis=axis)


# --- FGD ---------------------------------------------------------------------------------------


def fgd_masks(boxes, image_size, height, width):
    """Foreground and background of one image."""
    foreground = np.zeros((height, width))
    for box in boxes:
        x1, x2 = np.float32(box[[0, 2]]) / np.float32(image_size[1]) * np.float32(width)
        y1, y2 = np.float32(box[[1, 3]]) / np.float32(image_size[0]) * np.float32(height)
        x_lo, x_hi, y_lo, y_hi = math.floor(x1), math.ceil(x2), math.floor(y1), math.ceil(y2)
        value = 1 / ((y_hi + 1 - y_lo) * (x_hi + 1 - x_lo))
        for y in range(max(y_lo, 0), min(y_hi, height - 1) + 1):
            for x in range(max(x_lo, 0), min(x_hi, width - 1) + 1):
                foreground[y, x] = max(foreground[y, x], value)
    empty = (foreground == 0).astype(float)
    return foreground, empty / max(empty.sum(), 1)


def fgd_context(fixture, side, feature):
    """The map plus its global context, for one side ("s" or "t")."""

    def conv(name, x):
        weight, bias = (fixture.tensors[f"param_{name}_{side}{part}"] for part in parts[name])
        return F.conv2d(x, weight, bias)

    parts = {
        "conv_mask": (".weight", ".bias"),
        "channel_add_conv": (".0.weight", ".0.bias"),
    }
    attention = softmax(conv("conv_mask", feature).flatten(2), axis=2)
    pooled = (feature.flatten(2) * attention).sum(axis=2).unsqueeze(-1).unsqueeze(-1)
    hidden = conv("channel_add_conv", pooled)
    mean = hidden.mean(axis=[1, 2, 3], keepdim=True)
    variance = ((hidden - mean) ** 2).mean(axis=[1, 2, 3], keepdim=True)
    norm = [
        fixture.tensors[f"param_channel_add_conv_{side}.1.{part}"] for part in ("weight", "bias")
    ]
    hidden = F.relu((hidden - mean) / (variance + 1e-5).sqrt() * norm[0] + norm[1])
    parts["channel_add_conv"] = (".3.weight", ".3.bias")
    return feature + conv("channel_add_conv", hidden)


def fgd(seed, boxes, image_size, channels, size, weights):
    fixture = Fixture(seed)
    ours, theirs = channels
    for side in "st":
        name = f"param_channel_add_conv_{side}"
        fixture.normal(f"param_conv_mask_{side}.weight", 1, theirs, 1, 1, scale=0.5)
        fixture.normal(f"param_conv_mask_{side}.bias", 1)
        # A softmax is the same whatever is added to all its logits; what comes out is rounding.
        fixture.zero_gradients.append(f"param_conv_mask_{side}.bias")
        fixture.normal(f"{name}.0.weight", theirs // 2, theirs, 1, 1)
        fixture.normal(f"{name}.0.bias", theirs // 2)
        fixture.normal(f"{name}.1.weight", theirs // 2, 1, 1)
        fixture.normal(f"{name}.1.bias", theirs // 2, 1, 1)
        fixture.normal(f"{name}.3.weight", theirs, theirs // 2, 1, 1)
        fixture.normal(f"{name}.3.bias", theirs)
    student = fixture.normal("in_student", len(boxes), ours, *size)
    teacher = fixture.normal("in_teacher", len(boxes), theirs, *size)
    fixture.add("in_img_shape", np.array(image_size, np.int64))
    for image, rows in enumerate(boxes):
        fixture.add(f"in_gt_boxes_{image}", np.array(rows, np.float32).reshape(-1, 4))
    if ours != theirs:
        weight = fixture.normal("param_align.weight", theirs, ours, 1, 1, scale=0.5)
        student = F.conv2d(student, weight, fixture.normal("param_align.bias", theirs))

    temp, (height, width) = weights["temp"], size

    def spatial(feature):
        mean = feature.abs().mean(axis=1).flatten(1)
        return (height * width * softmax(mean / temp, 1)).reshape([-1, height, width])

    def channel(feature):
        return theirs * softmax(feature.abs().mean(axis=[2, 3]) / temp, 1)

    per_image = [
        fgd_masks(fixture.arrays[f"in_gt_boxes_{image}"], image_size[image], height, width)
        for image in range(len(boxes))
    ]
    masks = {
        "fg": np.stack([pair[0] for pair in per_image]),
        "bg": np.stack([pair[1] for pair in per_image]),
    }
    batch = len(boxes)
    error = spatial(teacher).unsqueeze(1) * channel(teacher).unsqueeze(-1).unsqueeze(-1)
    error = error * (student - teacher) ** 2
    terms = {
        name: (paddle.to_tensor(mask).unsqueeze(1) * error).sum() / batch
        for name, mask in masks.items()
    }
    gaps = (channel(student) - channel(teacher), spatial(student) - spatial(teacher))
    terms["attention"] = sum(gap.abs().sum() for gap in gaps) / batch
    relation = fgd_context(fixture, "s", student) - fgd_context(fixture, "t", teacher)
    terms["relation"] = (relation**2).sum() / batch
    keys = {"fg": "alpha", "bg": "beta", "attention": "gamma", "relation": "lambda"}
    loss = sum(terms[name] * weights[key] for name, key in keys.items())
    extras = {f"mask_{name}": mask for name, mask in masks.items()}
    for side, feature in (("student", student), ("teacher", teacher)):
        extras[f"spatial_attention_{side}"] = spatial(feature)
        extras[f"channel_attention_{side}"] = channel(feature)
    hyper = {"student_channels": ours, "teacher_channels": theirs, **weights}
    return fixture.finish(loss, hyper, terms, extras)


# --- feature maps ------------------------------------------------------------------------------


def cwd_official(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    axis = 2 if hyper["norm_type"] == "channel" else 1
    maps, tau = (student.flatten(2), teacher.flatten(2)), hyper["temperature"]
    if hyper["divergence"] == "kl":
        distance = tau**2 * kl(*maps, tau, axis)
        rows = distance.size
    else:
        distance = (softmax(maps[0], axis) - softmax(maps[1], axis)) ** 2
        rows = distance.size / distance.shape[axis]
    return fixture.finish(distance.sum() / rows, hyper)


def cwd_mmrazor(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    rows = kl(student.flatten(2), teacher.flatten(2), hyper["tau"], 2)
    return fixture.finish(rows.mean() * hyper["tau"] ** 2 * hyper["loss_weight"], hyper)


def standardise(x, eps, unbiased=False):
    """Of one channel; the two methods put ``eps`` in different places."""
    gap = x - x.mean()
    if unbiased:
        variance = (gap**2).sum() / (x.size - 1)
        return gap / (eps if float(variance) == 0 else variance.sqrt() + eps)
    return gap / ((gap**2).mean() + eps).sqrt()


def by_channel(x, function):
    return paddle.stack([function(x[:, channel]) for channel in range(x.shape[1])], axis=1)


def cwd_rtmdet(seed, shape, channels, **hyper):
    fixture = Fixture(seed)
    student = fixture.normal("in_student", *shape)
    teacher = fixture.normal("in_teacher", shape[0], channels, *shape[2:])
    weight = fixture.normal("param_conv_module.conv.weight", channels, shape[1], 1, 1)
    maps = {
        "student": by_channel(F.conv2d(student, weight), lambda x: standardise(x, 1e-5)),
        "teacher": by_channel(teacher, lambda x: standardise(x, 1e-5)),
    }
    rows = kl(*(x.flatten(2) for x in maps.values()), hyper["tau"], 2)
    loss = rows.mean() * hyper["tau"] ** 2 * hyper["loss_weight"]
    extras = {f"connected_{side}": x for side, x in maps.items()}
    return fixture.finish(loss, hyper, extras=extras)


def pkd(seed, shapes, **hyper):
    fixture = Fixture(seed)
    dead, terms, extras = hyper["dead_student_channels"], {}, {}
    for level, shape in enumerate(shapes):
        array = fixture.random.standard_normal(shape)
        array[:, dead] = 0
        student = fixture.add(f"in_student_{level}", array)
        teacher = fixture.normal(f"in_teacher_{level}", *shape)
        maps = [by_channel(x, lambda x: standardise(x, 1e-6, True)) for x in (student, teacher)]
        terms[f"level_{level}"] = hyper["loss_weight"] * ((maps[0] - maps[1]) ** 2).mean() / 2
        extras[f"normalised_student_{level}"] = maps[0]
    hyper = {"resize_stu": True, "levels": len(shapes), **hyper}
    return fixture.finish(sum(terms.values()), hyper, terms, extras)


def mgd_masked(seed, shape, **hyper):
    fixture = Fixture(seed)
    channels = shape[1]
    for layer in (0, 2):
        fixture.normal(f"param_generation.{layer}.weight", channels, channels, 3, 3, scale=0.2)
        fixture.normal(f"param_generation.{layer}.bias", channels, scale=0.2)
    student, teacher = fixture.pair(*shape)
    drawn = fixture.random.random((shape[0], 1, *shape[2:]))
    keep = fixture.add("mask_keep", (drawn <= 1 - hyper["lambda"]).astype(np.float32))
    x = student * keep
    for layer in (0, 2):
        weight, bias = (
            fixture.tensors[f"param_generation.{layer}.{part}"] for part in ("weight", "bias")
        )
        x = F.conv2d(F.relu(x) if layer else x, weight, bias, padding=1)
    term = ((x - teacher) ** 2).sum() / shape[0]
    hyper = {"student_channels": channels, "teacher_channels": channels, **hyper}
    loss = hyper["alpha"] * term
    return fixture.finish(loss, hyper, {"mse_over_n": term}, {"generated": x})


def score_l2(seed, shape, student_channels, classes, **hyper):
    fixture = Fixture(seed)
    batch, channels, height, width = shape
    x = fixture.normal("in_student", batch, student_channels, height, width)
    teacher = fixture.normal("in_teacher", *shape)
    logits = fixture.normal("in_logits", batch, classes, height, width, scale=3.0)
    for name, incoming in (("inner", student_channels), ("outer", channels)):
        fixture.normal(f"param_{name}.weight", channels, incoming, 1, 1, scale=0.5)
        fixture.normal(f"param_{name}.bias", channels, scale=0.2)
    flat = {name: fixture.tensors[f"param_{name}.weight"][:, :, 0, 0] for name in ("inner", "outer")}
    bias = {name: fixture.tensors[f"param_{name}.bias"] for name in ("inner", "outer")}
    total, weights = 0.0, 0.0
    for n in range(batch):
        for i in range(height):
            for j in range(width):
                hidden = flat["inner"] @ x[n, :, i, j] + bias["inner"]
                hidden = hidden * (hidden > 0).astype("float64")
                gap = flat["outer"] @ hidden + bias["outer"] - teacher[n, :, i, j]
                score = max(1 / (1 + math.exp(-float(z))) for z in logits[n, :, i, j])
                total, weights = total + score * (gap * gap).sum(), weights + score
    hyper = {"student_channels": student_channels, "teacher_channels": channels, **hyper}
    return fixture.finish(total / (channels * weights) * hyper["loss_weight"], hyper)


def l2(seed, shape, **hyper):
    fixture = Fixture(seed)
    maps = fixture.pair(*shape)
    if hyper["normalize"]:
        lengths = [(x**2).sum(axis=[1, 2, 3], keepdim=True).sqrt() for x in maps]
        maps = [x / length * hyper["mult"] for x, length in zip(maps, lengths, strict=True)]
    total = ((maps[0] - maps[1]) ** 2).sum()
    divisor = maps[0].size if hyper["div_element"] else shape[0]
    total = total.sqrt() if hyper["dist"] else total / divisor
    return fixture.finish(total * hyper["loss_weight"], hyper)


# --- logits ------------------------------------------------------------------------------------


def kl_case(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    total = kl(student, teacher, hyper["tau"], 1).sum() * hyper["tau"] ** 2
    divisor = {"batchmean": shape[0], "mean": student.size, "sum": 1}[hyper["reduction"]]
    return fixture.finish(total / divisor * hyper["loss_weight"], hyper)


def dkd(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    labels = fixture.random.integers(0, shape[1], shape[0])
    fixture.add("in_labels", labels)
    tau, terms = hyper["tau"], {"tckd": 0.0, "nckd": 0.0}
    for row, label in enumerate(labels):
        p, q = softmax(teacher[row] / tau, 0), softmax(student[row] / tau, 0)
        rest = 0.0
        for k in range(shape[1]):
            if k != label:
                fraction = [x[k] / (1 - x[int(label)]) for x in (p, q)]
                rest = rest + fraction[0] * (fraction[0] / fraction[1]).log()
        a, b = p[int(label)], q[int(label)]
        two_way = a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()
        terms["tckd"] = terms["tckd"] + two_way * tau**2 / shape[0]
        terms["nckd"] = terms["nckd"] + rest * tau**2 / shape[0]
    loss = hyper["alpha"] * terms["tckd"] + hyper["beta"] * terms["nckd"]
    return fixture.finish(loss * hyper["loss_weight"], hyper, terms)


def dist(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    p, q = softmax(student / hyper["tau"], 1), softmax(teacher / hyper["tau"], 1)

    def correlation(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / ((a**2).sum().sqrt() * (b**2).sum().sqrt() + 1e-8)

    terms = {
        "inter": 1 - sum(correlation(p[i], q[i]) for i in range(shape[0])) / shape[0],
        "intra": 1 - sum(correlation(p[:, k], q[:, k]) for k in range(shape[1])) / shape[1],
    }
    loss = sum(hyper[f"{name}_loss_weight"] * term for name, term in terms.items())
    return fixture.finish(loss * hyper["tau"] ** 2 * hyper["loss_weight"], hyper, terms)


def ld_kd(seed, shape, **hyper):
    fixture = Fixture(seed)
    student, teacher = fixture.pair(*shape)
    weight = fixture.add("in_weight", fixture.random.random(shape[0]))
    rows = kl(student, teacher, hyper["T"], 1) / shape[1] * hyper["T"] ** 2 * weight
    return fixture.finish(rows.sum() / hyper["avg_factor"] * hyper["loss_weight"], hyper)
