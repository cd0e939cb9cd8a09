"""The size that annotations are for against the image's own: boxes become those of the pixels that are trained on."""

from PIL import Image

from ppkd.files.regular import open_file
from ppkd.importing.source import Shape, number
from ppkd.terminal.log import logger

_ORIENTATION = 0x112  # EXIF's key
# A quarter turn, from a point of the stored pixels of this width and height to one of the turned picture.
_QUARTERS = {
    5: lambda x, y, width, height: (y, x),
    6: lambda x, y, width, height: (height - y, x),
    7: lambda x, y, width, height: (height - y, width - x),
    8: lambda x, y, width, height: (y, width - x),
}
_LEFT_OUT, _NAMED = "images of another size and shape than annotated: left out", 5
_RATIO = 0.05  # by which ratios may differ, when both sides are right to a pixel


def fitted(picture, width, height, dropped):
    """The shapes of a `source.Picture` in the pixels of its image.

    Args:
        picture: the image, and what is in it.
        width, height: of the image as `images.decode` has it, turned by its EXIF orientation.
        dropped: counts what is changed or left out.

    Returns:
        List of `Shape`; None if the annotations are for a picture of another shape: then nothing says where boxes lie.
    """
    size = picture.size or (width, height)
    shapes = picture.shapes(*size) if callable(picture.shapes) else picture.shapes
    stored, orientation = _stored(picture.path)
    quarter = _QUARTERS.get(orientation) if stored == (height, width) else None
    if _alike(size, (width, height)):
        is_said = picture.size is not None and stored is not None and not _alike(size, stored)
        if shapes and not is_said and (quarter or orientation in (2, 3, 4)):
            dropped["photographs that EXIF turns; nothing says that boxes were drawn on them turned: look at them"] += 1
        if size == (width, height):
            return shapes
        dropped["images of another size than annotated, but the same shape: boxes are scaled"] += 1
        return [_moved(shape, lambda x, y: (x * width / size[0], y * height / size[1]), size, (width, height), dropped)
                for shape in shapes]  # fmt: skip
    if quarter and _alike(size, stored):
        dropped["photographs that EXIF turns, with boxes of the pixels as stored: boxes are turned with them"] += 1

        def turn(x, y):
            return quarter(x * stored[0] / size[0], y * stored[1] / size[1], *stored)

        return [_moved(shape, turn, size, stored, dropped) for shape in shapes]
    dropped[_LEFT_OUT] += 1
    if dropped[_LEFT_OUT] <= _NAMED:
        logger().warning(
            "left out: %s: is %d x %d, and %s says %g x %g", picture.path, width, height, picture.where, *size
        )
    return None


def _alike(one, other):
    """Whether sizes are of one ratio, as far as sides in whole pixels tell it."""
    across, down = other[0] / one[0], other[1] / one[1]
    return abs(across * one[1] - other[1]) <= max(1, down) and abs(across / down - 1) <= _RATIO


def _stored(path):
    """``((width, height), orientation)`` before it is turned; None and 1 where Pillow cannot say it."""
    try:
        with open_file(path, "rb") as file, Image.open(file) as image:
            return image.size, image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of the many that odd files raise in Pillow; OpenCV has read it
        return None, 1


def _moved(shape, move, size, target, dropped):
    more = dict(shape.more)
    if "area" in more:
        more["area"] *= target[0] * target[1] / (size[0] * size[1])
    outlines = more.get("segmentation")
    if isinstance(outlines, dict):
        dropped["masks as run lengths of another size: the box alone is taken"] += 1
        more["segmentation"] = []
    elif outlines:
        outlines = outlines if isinstance(outlines[0], list) else [outlines]
        sound = [part for part in outlines if isinstance(part, list) and len(part) % 2 == 0]
        more["segmentation"] = [
            [round(n, 3) for x, y in zip(part[::2], part[1::2])
             for n in move(number(x, "segmentation", "x"), number(y, "segmentation", "y"))]
            for part in sound
        ]  # fmt: skip
    return Shape(shape.label, [move(x, y) for x, y in shape.points], shape.polygon, more)
