"""Sizes of images in evaluation, inference and export: heads lay out their grid for the images, not for a key.

PP-YOLOE's and PicoDet's heads keep the grid of ``eval_size``: images of another size end in an error of Paddle's, and
those of as many cells (height and width swapped) in boxes at wrong places.
"""

import contextlib

from ppkd.errors import UserError

# The keys that give the size of images, for messages.
EVAL_SIZE, TEST_SIZE = (f"Resize.target_size of {reader}.sample_transforms" for reader in ("EvalReader", "TestReader"))
EXPORT_SIZE = "TestReader.inputs_def.image_shape"
_KEYS = ("eval_size", "eval_height", "eval_width")
_STRIDE = 32
_BROKEN = (ValueError, RuntimeError, IndexError, TypeError)


def reader_size(config, reader):
    """``(height, width)`` that a reader brings all images to; None if they differ in size, or it does not say."""
    section = config.get(reader)
    steps = (section.get("sample_transforms") or []) if isinstance(section, dict) else []
    given = [step["Resize"] for step in steps if isinstance(step, dict) and isinstance(step.get("Resize"), dict)]
    if not given or given[-1].get("keep_ratio", True):
        return None
    size = given[-1].get("target_size")
    size = [size, size] if isinstance(size, int) else size
    return tuple(size) if _is_size(size) else None


def check_sizes(recipe, size, where):
    """Refuse a size that ``-o`` gives the detector while the images have another.

    What a file says is no contradiction: there the key stands for another data set or reader, and the images count.

    Args:
        recipe: `recipe.Recipe`.
        size: ``(height, width)`` of the images, or None if it is not fixed.
        where: the key that gives it, for messages.

    Raises:
        UserError: names both keys; or ``eval_size`` is no size.
    """
    config, given = recipe.student, [key for key in _KEYS if recipe.origin.get(key) == "-o"]
    whole = config.get("eval_size")
    if whole is not None and not _is_size(whole):
        raise UserError(f"eval_size has to be [height, width] in pixels or null, found {whole!r}")
    for key in given if size is not None else ():
        wanted = {"eval_size": tuple(size), "eval_height": size[0], "eval_width": size[1]}[key]
        value = tuple(config[key]) if isinstance(config[key], list) else config[key]
        if value is not None and value != wanted:
            shown = list(value) if isinstance(value, tuple) else value
            square = isinstance(value, tuple) and len({*value}) == len({*size}) == 1 and value[0] % _STRIDE == 0
            one = f"--imgsz {value[0]} moves both, or " if square else ""
            raise UserError(
                f"-o {key}={shown} does not go with {where}, which makes images {size[0]} high and {size[1]} wide: "
                f"{one}set {where} to the size that is meant, and leave {key} out: it follows the images"
            )


def follow_images(model, size=None):
    """Have a built detector lay out its grid for the images that it gets.

    Args:
        model: ppdet model; changed.
        size: ``(height, width)``: layers that were made for just this size stay as they are; None for none.
    """
    for layer in model.sublayers(include_self=True):
        made_for = getattr(layer, "eval_size", None)
        if made_for and (size is None or tuple(made_for) != tuple(size)):
            layer.eval_size = None


@contextlib.contextmanager
def fitting(size, where, seen=lambda: None):
    """A block in which a detector gets images of a size; what it does not take is told in one line.

    Args:
        size: ``(height, width)``, or None if it is not fixed.
        where: the key that gives it.
        seen: gives the size of the last batch, or None, where none is fixed.

    Raises:
        UserError: Paddle refused, and the size is no multiple of the strides.
    """
    try:
        yield
    except _BROKEN as error:
        fixed, size = size is not None, size or seen()
        if size is None or not any(side % _STRIDE for side in size):
            raise
        if not fixed:
            reader = where.partition(" of ")[2].partition(".")[0]
            raise UserError(
                f"{reader}: the detector does not take an image {size[0]} high and {size[1]} wide: its maps are halved "
                f"five times or more, so both have to be multiples of {_STRIDE}: add {{PadBatch: {{pad_to_stride: "
                f"{_STRIDE}}}}} to {reader}.batch_transforms"
            ) from error
        nearest = [max(_STRIDE, round(side / _STRIDE) * _STRIDE) for side in size]
        raise UserError(
            f"{where}: the detector does not take images {size[0]} high and {size[1]} wide: its maps are halved five "
            f"times or more, so both have to be multiples of {_STRIDE}, for example {nearest}"
        ) from error


def _is_size(value):
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )
