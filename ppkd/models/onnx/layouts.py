"""How a detector's outputs lie in an ONNX file: what a user may say of them, and what follows if they do not."""

from ppkd.errors import UserError, nearest
from ppkd.files.class_names import checked, given_names

# Names of classes that are published: COCO's 80, COCO's by the ids of its annotations (0 to 90), PASCAL VOC's 20.
PUBLISHED = ("coco", "coco91", "voc")
FORMS = ("xyxy", "cxcywh", "xywh")
UNITS = ("pixels", "fraction")
ACTIVATIONS = ("none", "sigmoid", "softmax")
COLUMNS = ("image", "x1", "y1", "x2", "y2", "score", "label")
_CHOICES = {"form": FORMS, "unit": UNITS, "activation": ACTIVATIONS, "channels": ("first", "last")}
# Of each layout: the outputs that it has, those that it may have, and what is usual.
OUTPUTS = {
    "split": (("boxes", "scores", "labels"), ("count",)),
    "rows": (("rows",), ("count",)),
    "yolo": (("output",), ()),
    "detr": (("boxes", "logits"), ()),
}
_USUAL = {
    "split": {"form": "xyxy", "unit": "pixels", "nms": None},
    "rows": {"form": "xyxy", "unit": "pixels", "nms": None, "columns": ["x1", "y1", "x2", "y2", "score", "label"]},
    "yolo": {"form": "cxcywh", "unit": "pixels", "nms": 0.7, "activation": "none", "channels": "first",
             "objectness": False},
    "detr": {"form": "cxcywh", "unit": "fraction", "nms": None, "activation": "sigmoid"},
}  # fmt: skip
_OF_ALL = {"names": None, "score": 0.01, "most": 300, "size": None, "keep_ratio": False}


def read_layout(given, where):
    """What ``detections:`` of a teacher says, with what is usual where it says nothing.

    Args:
        given: the mapping.
        where: file and key, for messages.

    Returns:
        Plain values: ``layout``; of its outputs the names that are given; ``form``, ``unit``, ``nms`` and whatever else
        the layout has; ``names`` (list, one of `PUBLISHED`, or None), ``score``, ``most``, ``size``, ``keep_ratio``.

    Raises:
        UserError: an unknown layout or key, or a value that is none.
    """
    if not isinstance(given, dict) or given.get("layout") not in OUTPUTS:
        found = given.get("layout") if isinstance(given, dict) else given
        raise UserError(f"{where} needs layout: one of {', '.join(OUTPUTS)}, found {found!r}")
    layout = given["layout"]
    needed, more = OUTPUTS[layout]
    made = _OF_ALL | _USUAL[layout] | dict.fromkeys((*needed, *more))
    for key, value in given.items():
        if key != "layout" and key not in made:
            raise UserError(f"{where}: layout {layout} has no key {key!r}{nearest(key, made)}")
        made[key] = _checked(key, value, f"{where}.{key}", (*needed, *more))
    return made


def _checked(key, value, where, outputs):
    if key in outputs:
        good, what = isinstance(value, str), "the name of an output"
    elif key in _CHOICES:
        good, what = value in _CHOICES[key], f"one of {', '.join(_CHOICES[key])}"
    elif key in ("objectness", "keep_ratio"):
        good, what = isinstance(value, bool), "true or false"
    elif key in ("score", "nms"):
        good = _is_number(value) and 0 <= value <= 1 or (key == "nms" and value is None)
        what = "a number from 0 to 1" + (", or null for no suppression" if key == "nms" else "")
    elif key == "most":
        good, what = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10000, "from 1 to 10000"
    elif key == "size":
        good, what = value is None or _is_size(value), "[height, width] in pixels"
    elif key == "columns":
        five = isinstance(value, list) and len(value) == len(set(map(str, value))) and {*COLUMNS[1:]} <= set(value)
        # What is no name of a column is one that nobody needs.
        good, what = five, f"a list of columns with {', '.join(COLUMNS[1:])} in it, and image where rows are of several"
    elif key == "names":
        return _names(value, where)
    else:
        return value
    if not good:
        raise UserError(f"{where} has to be {what}, found {value!r}")
    return value


def _names(value, where):
    if value is None or value in PUBLISHED:
        return value
    if isinstance(value, str):
        return given_names(value)
    if isinstance(value, list) and any(name is None for name in value):  # numbers that are no class
        return [None if name is None else str(name) for name in value]
    return checked(value, where)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_size(value):
    whole = isinstance(value, list) and len(value) == 2
    return whole and all(isinstance(n, int) and not isinstance(n, bool) and 32 <= n <= 8192 for n in value)
