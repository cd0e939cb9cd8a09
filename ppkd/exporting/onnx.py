"""Turns an exported graph into ONNX with paddle2onnx, in a process of its own: on what it cannot convert it aborts."""

import os
import subprocess
import sys
import tempfile
from importlib import metadata

import paddle

from ppkd.bridge.compat.onnx_nms import known_number_of_boxes
from ppkd.bridge.compat.onnx_numbers import narrow_numbers
from ppkd.errors import UserError
from ppkd.exporting.onnx_names import name_outputs
from ppkd.exporting.static import image_shape, write_static

# The release that reads the graphs of this Paddle; each refuses the other's.
_RELEASE = "1.3.1" if int(paddle.__version__.split(".")[0]) < 3 else "2.1.0"
_NO_PROPOSALS = "it knows neither generate_proposals nor distribute_fpn_proposals"
_RCNN = dict.fromkeys(("FasterRCNN", "MaskRCNN", "CascadeRCNN"), _NO_PROPOSALS)
_DEFORMABLE = "it does not know deformable convolutions (deformable_conv_v1)"
# What paddle2onnx does not convert, or into a file that does not run: architecture -> why.
_UNCONVERTED = {
    "1.3.1": _RCNN | {
        "RetinaNet": "it loses the size of a slice that goes backwards",
        "TOOD": "it does not set values along two axes",
        **dict.fromkeys(("SOLO", "SOLOv2"), "it makes a list where a number is wanted (ConstantOfShape)"),
        "RepPoints": _DEFORMABLE,
    },
    "2.1.0": _RCNN | {
        "RetinaNet": "it loses the size of a slice that goes backwards",
        "RepPoints": _DEFORMABLE,
        **dict.fromkeys(("FCOS", "FCOSOfMMDet"), "it slices the list of locations along an axis too many"),
    },
}  # fmt: skip
_CONVERT = """
import sys
sys.path[:] = [p for p in sys.path if p]  # without the folder where one works: what lies there may be anybody's
import zlib  # before Paddle: see ppkd.bridge.compat.zlib_order
import paddle2onnx
graph, weights, target, opset = sys.argv[1:]
converted = paddle2onnx.export(graph, weights, None, opset_version=int(opset), verbose=False)
with open(target, "wb") as file:
    file.write(converted)
"""


def check_onnx(config):
    """Check that the detector of a config can be converted here.

    Raises:
        UserError: paddle2onnx is missing or of the wrong release, or known not to convert this architecture; or images
            have no fixed size.
    """
    architecture = config["architecture"]
    if image_shape(config) is None or -1 in image_shape(config):
        raise UserError(
            "--onnx: paddle2onnx has to know the size of the images: give TestReader.inputs_def.image_shape, for "
            "example -o TestReader.inputs_def.image_shape=[3,640,640]"
        )
    try:
        found = metadata.version("paddle2onnx")
    except metadata.PackageNotFoundError:
        found = None
    if found is None or found.split(".")[0] != _RELEASE.split(".")[0]:
        raise UserError(
            f"--onnx: Paddle {paddle.__version__} needs paddle2onnx {_RELEASE}, and "
            f"{'there is none' if found is None else 'here is ' + found}: pip install --no-deps paddle2onnx=={_RELEASE}"
        )
    reason = _UNCONVERTED[_RELEASE].get(architecture)
    if reason:
        raise UserError(f"--onnx: paddle2onnx {found} does not convert {architecture}: {reason}. Leave out --onnx")


def write_onnx(model, recipe, target, opset):
    """Write ``model.onnx`` for one image a batch.

    Args:
        model, recipe: as for `static.write_static`.
        target: path of the file to write.
        opset: version of ONNX's operators; a graph that needs a higher one gets that.

    Raises:
        UserError: paddle2onnx did not convert it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with known_number_of_boxes(model, image_shape(recipe.student)):
            folder = write_static(model, recipe, scratch, batch=1)
        convert(folder, target, opset)
        name_outputs(target, model)


def convert(folder, target, opset):
    """Convert the graph in `folder`, which is changed, to the ONNX file `target`.

    Args:
        folder: as `static.write_static` leaves it.
        target, opset: as for `write_onnx`.

    Raises:
        UserError: paddle2onnx did not convert it.
    """
    graph = next(p for p in (os.path.join(folder, n) for n in ("model.json", "model.pdmodel")) if os.path.exists(p))
    if graph.endswith(".json"):
        narrow_numbers(graph)
    arguments = [graph, os.path.join(folder, "model.pdiparams"), target, str(opset)]
    done = subprocess.run([sys.executable, "-c", _CONVERT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode or not os.path.exists(target):
        raise UserError(f"--onnx: paddle2onnx did not convert this detector: {_reason(done.stdout + done.stderr)}")


def _reason(text):
    lines = [line.strip() for line in text.splitlines() if any(word in line for word in ("rror", "ERROR", "Oops"))]
    return lines[0] if lines else "it gave no reason"
