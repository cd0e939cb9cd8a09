"""Writes a detector as a static graph for Paddle Inference, with PaddleDetection's file names and layout."""

import os

import paddle

from ppkd.bridge.compat import static_graph
from ppkd.bridge.ppdet_trainer import exportable, graphs_of, trainer_of
from ppkd.bridge.sizes import EXPORT_SIZE, TEST_SIZE, check_sizes, fitting, follow_images, reader_size
from ppkd.bridge.workspace import scope
from ppkd.detectors.found import check_post_process
from ppkd.errors import UserError, nearest
from ppkd.files.write import filling
from ppkd.terminal.log import hushed, logger

_SWITCHES = ("benchmark", "fuse_conv_bn", "nms", "post_process")
# What an export may write; of a former one nothing of this stays beside the new files.
_FILES = ("model.pdmodel", "model.json", "model.pdiparams", "model.pdiparams.info", "model.onnx", "infer_cfg.yml")


def check_export(config):
    """Check what a config says about exporting: ``export:`` and ``TestReader.inputs_def.image_shape``.

    Raises:
        UserError: an unknown switch, a shape that is none, or a detector that ppdet cannot export.
    """
    known = exportable()
    if not any(name in str(config.get("architecture")) for name in known):
        # ppdet itself would end the process, with exit code 0 and a folder left behind.
        raise UserError(f"ppdet does not export {config.get('architecture')}, only {', '.join(sorted(known))}")
    for key in config.get("export") or {}:
        if key not in _SWITCHES:
            raise UserError(f"export: no switch {key!r}{nearest(key, _SWITCHES)} (known: {', '.join(_SWITCHES)})")
    shape = _given_shape(config)
    if shape is not None and not _is_image_shape(shape):
        raise UserError(
            f"TestReader.inputs_def.image_shape: {shape!r} is no shape: [3, height, width] is, in pixels, with -1 for "
            "any height or width, and a batch size before it if that is fixed"
        )


def image_shape(config):
    """``[3, height, width]`` as `TestReader.inputs_def` gives it, -1 for any; None if it is not given."""
    shape = _given_shape(config)
    return None if shape is None else list(shape)[-3:]


def for_size(recipe):
    """The config by which a detector is built for export: its grid is that of the images of the graph.

    Args:
        recipe: `recipe.Recipe`.

    Raises:
        UserError: ``-o eval_size`` is another size than ``TestReader.inputs_def.image_shape``.
    """
    shape = image_shape(recipe.student)
    size = None if shape is None or -1 in shape else tuple(shape[1:])
    check_sizes(recipe, size, EXPORT_SIZE)
    if shape is None:
        check_sizes(recipe, reader_size(recipe.student, "TestReader"), TEST_SIZE)
    return recipe.student | {"eval_size": size and list(size)} if recipe.student.get("eval_size") else recipe.student


def _given_shape(config):
    return ((config.get("TestReader") or {}).get("inputs_def") or {}).get("image_shape")


def _is_image_shape(shape):
    return (
        isinstance(shape, (list, tuple))
        and len(shape) in (3, 4)
        and shape[-3] == 3  # images are decoded to so many channels
        and all(isinstance(n, int) and not isinstance(n, bool) and (n == -1 or n > 0) for n in shape[-3:])
        and (len(shape) == 3 or shape[0] is None or (isinstance(shape[0], int) and (shape[0] == -1 or shape[0] > 0)))
    )


def write_static(model, recipe, folder, batch=None):
    """Write ``model.pdmodel`` (Paddle 2) or ``model.json`` (Paddle 3), ``model.pdiparams`` and ``infer_cfg.yml``.

    Args:
        model: detector with its weights, as `workspace.build_detector` makes it: ppdet gives it further layers here
            (fused ones), whose names must not repeat, so none of `build.build_student`, which starts names anew. Is
            changed, and no longer fit for training.
        recipe: its `recipe.Recipe`.
        folder: where to make the folder ``recipe.name`` with the files.
        batch: the one number of images that the graph takes; None for any (or what the config says).

    Returns:
        That folder's path.

    Raises:
        UserError: no graph can be made of such a detector; see `found.check_post_process`.
    """
    if type(model).__name__ == "SparseRCNN":
        # Its own export lacks the sizes that the reader tells; with them Paddle cannot save its graph.
        raise UserError(
            "Sparse R-CNN cannot be exported: Paddle makes no graph of it. To deploy, distil a student of another kind"
        )
    if (recipe.student.get("export") or {}).get("post_process", True):
        check_post_process(model)
    with scope(recipe.student) as table:
        static_graph.cure_export()
        config = table.copy()
        config["model"], config["filename"] = model, recipe.name + ".yml"
        # ppdet asks for the graph as a whole, which Paddle since 2.6 makes only if told so.
        shape = image_shape(recipe.student)
        size = None if shape is None or -1 in shape else shape[1:]
        follow_images(model, size)
        batch = _images_at_a_time(model, recipe.student) if batch is None else batch
        with paddle.jit.api.sot_mode_guard(False), graphs_of(batch), fitting(size, EXPORT_SIZE), hushed():
            trainer_of(config, "test").export(folder)
    return os.path.join(folder, recipe.name)


def _images_at_a_time(model, config):
    """The number of images that a graph has to be made for, the config's if it says one; None where that is any.

    Deformable attention multiplies the size of the batch, and Paddle 3 makes no graph of a product with an unknown one;
    nor does Paddle 2 of RT-DETRv2's.

    Raises:
        UserError: Deformable DETR or DINO on Paddle 3, which lose sight of the size of the batch wherever it is given.
    """
    deformable = any(hasattr(layer, "ms_deformable_attn_core") for layer in model.sublayers())
    kind, paddle_3 = type(getattr(model, "transformer", None)).__name__, int(paddle.__version__.split(".")[0]) >= 3
    if not deformable or not (paddle_3 or kind == "RTDETRTransformerv2"):
        return None
    if kind in ("DeformableTransformer", "DINOTransformer"):
        raise UserError(f"Paddle {paddle.__version__} makes no graph of {kind}: export it with Paddle 2.6.2")
    shape = _given_shape(config) or [3]
    if len(shape) == 4 and (shape[0] or -1) > 0:
        return shape[0]
    logger().warning(
        "exported for one image at a time: Paddle makes no graph of this attention for any number of images; for "
        "another give -o TestReader.inputs_def.image_shape=[N,3,HEIGHT,WIDTH]"
    )
    return 1


def publish(write, folder):
    """Have ``write(temporary folder)`` make a folder with the files, and move these to `folder` when all are there.

    Args:
        write: returns the path of the folder that it made inside of the temporary one.
        folder: path; made if there is none. Files of a former export in it are replaced, others stay.
    """
    with filling(folder) as scratch:
        made = write(scratch)
        names = os.listdir(made)
        for name in names:
            os.replace(os.path.join(made, name), os.path.join(scratch, name))
    for name in set(_FILES) - set(names):
        if os.path.isfile(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
