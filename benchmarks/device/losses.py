"""Losses on the device: golden files where there are some, and else numbers that the CPU has given."""

import contextlib
import io
import json
import os
from unittest import mock

import numpy as np
import paddle

from benchmarks.device.lines import NOT_HERE, tried
from ppkd.losses import LOSSES, fgd_levels

EXPECTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.json")
# Of products that a GPU takes in TF32, whose numbers have ten bits, and of any other float32.
TOLERANCE = {"gpu": 2e-3, "cpu": 1e-4}
_SHAPE = (2, 8, 12, 16)
_BOXES = [[[8.0, 8.0, 60.0, 40.0], [20.0, 30.0, 120.0, 90.0]], [[0.0, 0.0, 30.0, 95.0], [0.0, 0.0, 0.0, 0.0]]]
_FGD = {"channels": 8}, ("boxes", "boxes_valid", "image_size", "padded_size")
# Losses between two maps: parameters, and what else their forward gets. On a GPU FGD takes another way for several
# levels, and another one for a large map.
CASES = {
    "fgd": _FGD,
    "fgd of levels": _FGD,
    "fgd of a large map": _FGD,
    "cwd": ({}, ()),
    "pkd": ({}, ()),
    "mgd": ({"channels": 8}, ("mask_keep",)),
    "mimic": ({}, ()),
    "l2": ({}, ()),
    "kl": ({}, ()),
    "dist": ({}, ()),
    "partial_l2": ({}, ()),
}


def group(args):
    """The lines of this part."""
    yield from golden(args)
    for name in CASES:
        yield tried(f"loss {name}", _as_expected, name, args.device)


def golden(args):
    """Parity with the golden files of a folder, if one is given."""
    if not args.golden:
        said = "--golden FOLDER was not given; the lines below stand in"
        return [tried("golden files", lambda: (NOT_HERE, said, {}))]
    return [tried("golden files", _golden, args.golden)]


def _golden(folder):
    from tests.golden.check.report import report

    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = report(folder)
    last = [line for line in out.getvalue().splitlines() if line.strip()][-1:]
    return code == 0, " ".join(last), {"exit": code}


def measured(name):
    """Value by part of a loss, and the norm of its gradient, from numbers that are the same everywhere."""
    options, asked = CASES[name]
    drawn = np.random.RandomState(len(name))
    shapes = [_SHAPE, (*_SHAPE[:2], 6, 8)] if name.endswith("levels") else [_SHAPE]
    losses = [LOSSES[name.split()[0]](**options) for _ in shapes]
    for parameter in (p for loss in losses for p in loss.parameters()):
        parameter.set_value(drawn.randn(*parameter.shape).astype("float32") / parameter.shape[0] ** 0.5)
    sides = [[paddle.to_tensor(drawn.randn(*shape).astype("float32")) for _ in range(2)] for shape in shapes]
    for student, _ in sides:
        student.stop_gradient = False
    context = {
        "boxes": paddle.to_tensor(_BOXES), "boxes_valid": paddle.to_tensor([[1.0, 1.0], [1.0, 0.0]]),
        "image_size": paddle.to_tensor([[96.0, 128.0]] * 2), "padded_size": (96, 128),
        "mask_keep": paddle.to_tensor((drawn.rand(2, 1, *_SHAPE[2:]) > 0.5).astype("float32")),
    }  # fmt: skip
    context = {key: context[key] for key in asked}
    if len(losses) > 1:
        parts = type(losses[0]).together(losses, *map(list, zip(*sides)), **context)
        found = {f"{part} {i}": x for i, each in enumerate(parts) for part, x in each.items()}
    else:
        with mock.patch.object(fgd_levels, "_MOST", 0 if name.endswith("large map") else fgd_levels._MOST):
            found = losses[0](*sides[0], **context)
        found = found if isinstance(found, dict) else {"value": found}
    sum(found.values()).backward()
    norms = [float(student.grad.norm()) for student, _ in sides]
    return {**{part: float(x) for part, x in found.items()}, "gradient": sum(norms)}


def _as_expected(name, device):
    with open(EXPECTED, encoding="utf-8") as file:
        expected = json.load(file)[name]
    found = measured(name)
    gaps = {part: abs(found[part] - value) / max(abs(value), 1e-12) for part, value in expected.items()}
    worst, most = max(gaps, key=gaps.get), TOLERANCE[device]
    detail = f"{worst} differs from the CPU's by {gaps[worst]:.1e} of it (target: at most {most:g})"
    return found.keys() == expected.keys() and gaps[worst] <= most, detail, found


def write_expected():
    """Write the file of numbers anew, on the CPU."""
    paddle.set_device("cpu")
    with open(EXPECTED, "w", encoding="utf-8") as file:
        json.dump({name: measured(name) for name in CASES}, file, indent=1)
        file.write("\n")
