"""Turns an exported graph into ONNX with paddle2onnx, in a process of its own: on what it cannot convert it aborts."""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata

import paddle

from ppkd.compat.onnx_numbers import narrow_numbers
from ppkd.errors import UserError

_PADDLE = int(paddle.__version__.split(".")[0])
# The release that reads the graphs of this Paddle; each refuses the other's.
_RELEASE = "1.3.1" if _PADDLE < 3 else "2.1.0"
_NO_PROPOSALS = "it knows neither generate_proposals nor distribute_fpn_proposals"
# What paddle2onnx does not convert, or into a file that does not run: architecture -> why, by Paddle's major version.
_UNCONVERTED = {
    2: {"FasterRCNN": _NO_PROPOSALS, "MaskRCNN": _NO_PROPOSALS, "CascadeRCNN": _NO_PROPOSALS},
    3: {"FasterRCNN": _NO_PROPOSALS, "MaskRCNN": _NO_PROPOSALS, "CascadeRCNN": _NO_PROPOSALS},
}
_CONVERT = """
import sys
import zlib  # before Paddle: see ppkd.compat.zlib_order
import paddle2onnx
graph, weights, target, opset = sys.argv[1:]
converted = paddle2onnx.export(graph, weights, None, opset_version=int(opset), verbose=False)
with open(target, "wb") as file:
    file.write(converted)
"""


def check_onnx(architecture):
    """Check that a detector can be converted here.

    Args:
        architecture: as in the config.

    Raises:
        UserError: paddle2onnx is missing or of the wrong release, or known not to convert this architecture.
    """
    try:
        found = metadata.version("paddle2onnx")
    except metadata.PackageNotFoundError:
        found = None
    if found is None or found.split(".")[0] != _RELEASE.split(".")[0]:
        raise UserError(
            f"--onnx: Paddle {paddle.__version__} needs paddle2onnx {_RELEASE}, and "
            f"{'there is none' if found is None else 'here is ' + found}: pip install --no-deps paddle2onnx=={_RELEASE}"
        )
    reason = _UNCONVERTED[min(_PADDLE, 3)].get(architecture)
    if reason:
        raise UserError(f"--onnx: paddle2onnx {found} does not convert {architecture}: {reason}. Leave out --onnx")


def convert(folder, target, opset):
    """Convert the graph in `folder`, written for one image a batch, to the ONNX file `target`.

    Args:
        folder: as `export.write_static` leaves it.
        target: path of the file to write.
        opset: version of ONNX's operators; a graph that needs a higher one gets that.

    Raises:
        UserError: paddle2onnx did not convert it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in os.listdir(folder):
            shutil.copy(os.path.join(folder, name), scratch)
        graph = next(n for n in ("model.json", "model.pdmodel") if os.path.exists(os.path.join(scratch, n)))
        if graph == "model.json":
            narrow_numbers(os.path.join(scratch, graph))
        paths = [os.path.join(scratch, graph), os.path.join(scratch, "model.pdiparams"), target]
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, *paths, str(opset)], capture_output=True, text=True, check=False
        )
    if done.returncode or not os.path.exists(target):
        raise UserError(f"--onnx: paddle2onnx did not convert this detector: {_reason(done.stdout + done.stderr)}")


def _reason(text):
    lines = [line.strip() for line in text.splitlines() if any(word in line for word in ("rror", "ERROR", "Oops"))]
    return lines[0] if lines else "it gave no reason"
