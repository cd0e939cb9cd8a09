"""Detections in the common layouts of ONNX files are the same boxes; what does not fit is refused in one line."""

import tracemalloc

import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.files.class_spellings import match
from ppkd.models.onnx import decoding
from ppkd.models.onnx.contents import image_size
from ppkd.models.onnx.decoding import Decoder
from ppkd.models.onnx.layouts import read_layout
from ppkd.models.onnx.worker import _names
from tests.models.onnx_file import convolutions

SIZE = (64, 128)  # height and width of the images
# Two images: class, score and corners of what is on them, the best first.
TRUE = [
    [(2, 0.9, (8.0, 8.0, 40.0, 24.0)), (0, 0.5, (64.0, 16.0, 128.0, 64.0))],
    [(1, 0.75, (0.0, 0.0, 16.0, 32.0))],
]


def logit(p):
    return np.log(p / (1 - p))


def padded(fill=-1.0):
    """Labels, scores and corners, (2, 3), (2, 3), (2, 3, 4): rows that are no boxes are filled up."""
    labels, scores, boxes = np.full([2, 3], fill), np.zeros([2, 3]), np.zeros([2, 3, 4])
    for i, image in enumerate(TRUE):
        for j, (label, score, box) in enumerate(image):
            labels[i, j], scores[i, j], boxes[i, j] = label, score, box
    return labels, scores, boxes


def in_form(boxes, form, unit):
    low, high = boxes[..., :2], boxes[..., 2:]
    made = {"xyxy": (low, high), "cxcywh": ((low + high) / 2, high - low), "xywh": (low, high - low)}[form]
    return np.concatenate(made, axis=-1) / (np.tile(SIZE[::-1], 2) if unit == "fraction" else 1)


def dense():
    """Scores (2, 3, classes) of `padded`."""
    labels, scores, _ = padded()
    made = np.zeros([2, 3, 3])
    for i, j in np.argwhere(labels >= 0):
        made[i, j, int(labels[i, j])] = scores[i, j]
    return made


def flat(columns):
    """All rows of both images, one below the other."""
    named = {"image": lambda i, row: i, "label": lambda i, row: row[0], "score": lambda i, row: row[1],
             "extra": lambda i, row: 7} | {name: (lambda i, row, k=k: row[2][k])
             for k, name in enumerate(("x1", "y1", "x2", "y2"))}  # fmt: skip
    return np.array([[named[c](i, row) for c in columns] for i, image in enumerate(TRUE) for row in image])


def softmaxed():
    """Logits (2, 3, 4) of a softmax with a background that give the scores of `dense`."""
    scores = dense() * 0.999 + 1e-5
    return np.log(np.concatenate([scores, 1 - scores.sum(axis=2, keepdims=True)], axis=2))


LABELS, SCORES, BOXES = padded()
COUNT = np.array([2, 1])
PADDLES, YOLOV7 = ["label", "score", "x1", "y1", "x2", "y2"], ["image", "x1", "y1", "x2", "y2", "label", "score"]
ROWS3 = np.concatenate([BOXES, SCORES[..., None], LABELS[..., None]], axis=2)


def raw(form="cxcywh", unit="pixels", objectness=False):
    parts = [in_form(BOXES, form, unit), *([np.full([2, 3, 1], 0.8)] if objectness else ()), dense()]
    if objectness:
        parts[-1] = parts[-1] / 0.8 * (parts[-1] < 0.8) + (parts[-1] >= 0.8) * 1.0
    return np.concatenate(parts, axis=2)


CASES = {
    "boxes, scores and labels": ({"layout": "split"}, [BOXES, SCORES, LABELS]),
    "their numbers": ({"layout": "split", "count": "count"}, [BOXES, SCORES, np.where(LABELS < 0, 0, LABELS), COUNT]),
    "shares of the image": (
        {"layout": "split", "unit": "fraction", "form": "xywh"}, [in_form(BOXES, "xywh", "fraction"), SCORES, LABELS]
    ),
    "rows of images": ({"layout": "rows"}, [ROWS3]),
    "PaddleDetection's": ({"layout": "rows", "columns": PADDLES, "count": "count"}, [flat(PADDLES), COUNT]),
    "rows with their image": ({"layout": "rows", "columns": YOLOV7}, [flat(YOLOV7)]),
    "rows with more": ({"layout": "rows", "columns": ["extra", *YOLOV7]}, [flat(["extra", *YOLOV7])]),
    "YOLO, channels first": ({"layout": "yolo"}, [raw().transpose(0, 2, 1)]),
    "YOLO, channels last": ({"layout": "yolo", "channels": "last"}, [raw()]),
    "YOLO in shares of the image": (
        {"layout": "yolo", "channels": "last", "unit": "fraction"}, [raw(unit="fraction")]
    ),
    "YOLO with corners": ({"layout": "yolo", "channels": "last", "form": "xyxy"}, [raw("xyxy")]),
    "DETR": ({"layout": "detr"}, [in_form(BOXES, "cxcywh", "fraction"), logit(dense().clip(1e-4, 1 - 1e-4))]),
    "DETR with a background": (
        {"layout": "detr", "activation": "softmax"}, [in_form(BOXES, "cxcywh", "fraction"), softmaxed()]
    ),
}  # fmt: skip


def decoded(options, values, count=2, classes=3):
    options = read_layout({"score": 0.2, **options}, "x")
    names = [role for role in ("boxes", "scores", "labels", "logits", "rows", "output", "count") if role in options]
    names = [role for role in names if role != "count" or options["count"]]
    outputs = list(names) if options["layout"] != "detr" else ["boxes", "logits"]
    decoder = Decoder(options, outputs, [list(v.shape) for v in values], classes, "x.onnx")
    return decoder.found([values[outputs.index(name)].astype("float32") for name in decoder.wanted], count, SIZE)


@pytest.mark.parametrize("name", CASES)
def test_every_layout_tells_the_same_boxes(name):
    options, values = CASES[name]
    for (labels, scores, boxes), expected in zip(decoded(options, values), TRUE, strict=True):
        assert labels.tolist() == [label for label, _, _ in expected]
        assert np.allclose(scores, [score for _, score, _ in expected], atol=2e-3)
        assert np.allclose(boxes, [box for _, _, box in expected], atol=1e-3)


def test_objectness_is_a_factor_on_the_scores():
    (labels, scores, _), _ = decoded({"layout": "yolo", "channels": "last", "objectness": True}, [raw(objectness=True)])
    assert labels.tolist() == [2, 0] and np.allclose(scores, [0.8, 0.5], atol=1e-5)


def test_overlapping_boxes_of_a_class_are_one_and_the_best_of_too_many_are_kept():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10], [30, 30, 40, 40]]])
    values = [boxes, np.array([[0.8, 0.9, 0.7, 0.3]]), np.array([[1, 1, 0, 1]])]
    ((labels, scores, _),) = decoded({"layout": "split", "nms": 0.6}, values, 1)
    assert labels.tolist() == [1, 0, 1] and np.allclose(scores, [0.9, 0.7, 0.3])
    ((labels, _, _),) = decoded({"layout": "split", "most": 2}, values, 1)
    assert labels.tolist() == [1, 1]


def test_what_is_looked_at_in_pieces_is_what_all_together_is(monkeypatch):
    drawn = np.random.RandomState(0)
    scores = drawn.randint(0, 9, [2, 500, 3]) / 10  # many are equal, of which the first count
    values = [np.concatenate([drawn.uniform(0, 60, [2, 500, 4]), scores], axis=2)]
    options = {"layout": "yolo", "channels": "last", "nms": None, "most": 10000}
    monkeypatch.setattr(decoding, "_BEFORE", 400)
    whole = decoded(options, values)
    monkeypatch.setattr(decoding, "_PIECE", 50)
    for one, other in zip(whole, decoded(options, values), strict=True):
        assert len(one[0]) == 400 and all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "options", [{"layout": "yolo", "channels": "last", "activation": "sigmoid"}, {"layout": "rows"}]
)
def test_outputs_of_any_size_take_no_multiple_of_it(options):
    width = 7 if options["layout"] == "yolo" else 6
    output = np.full([1, 600_000, width], 0.5, "float32")  # every one of them is a detection
    tracemalloc.start()
    try:
        decoded(options, [output], 1)
        assert tracemalloc.get_traced_memory()[1] < 2 * output.nbytes  # one copy is the test's own
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options, values, told",
    [
        ({"layout": "split"}, [BOXES, SCORES[:, :2], LABELS], "are wanted, found boxes .2, 3, 4., scores .2, 2."),
        ({"layout": "split"}, [BOXES, SCORES * 30, LABELS], "scores from 0 to 1 are wanted, found 15 to 27"),
        ({"layout": "split"}, [BOXES, SCORES, LABELS + 5], "it finds class 7, and has names for 3"),
        ({"layout": "split"}, [BOXES * np.inf, SCORES, LABELS], "not finite"),
        ({"layout": "split"}, [BOXES, SCORES, LABELS * np.nan], "labels that are not finite"),
        ({"layout": "split", "count": "count"}, [BOXES, SCORES, LABELS, COUNT + 3], r"count is .5\.0, 4\.0.: .* of 3"),
        ({"layout": "rows", "count": "count", "columns": PADDLES}, [flat(PADDLES), COUNT + 1], "of 3 that there are"),
        ({"layout": "rows"}, [flat(YOLOV7)], "rows of 6 columns .* are wanted, found .3, 7."),
        ({"layout": "rows"}, [flat(["x1", "y1", "x2", "y2", "score", "label"])], "name the output that counts them"),
        ({"layout": "yolo"}, [raw()], "7 channels .4 of the box, 3 classes. are wanted, channels first"),
        ({"layout": "yolo", "objectness": True}, [raw().transpose(0, 2, 1)], "8 channels"),
        ({"layout": "detr", "activation": "softmax"}, [BOXES, dense()], "and the background"),
        ({"layout": "split"}, [BOXES[:1], SCORES[:1], LABELS[:1]], "of 1 images, of 2 that it was given"),
    ],
)  # fmt: skip
def test_outputs_of_another_layout_are_refused(options, values, told):
    with pytest.raises(UserError, match=f"x.onnx: .*{told}"), np.errstate(invalid="ignore"):
        decoded(options, values)


@pytest.mark.parametrize(
    "given, told",
    [
        ("yolo", "needs layout: one of split, rows, yolo, detr, found 'yolo'"), ({"layout": "ssd"}, "found 'ssd'"),
        ({"layout": "yolo", "colums": 1}, "yolo has no key 'colums'"),
        ({"layout": "yolo", "chanels": 1}, "nearest: channels"), ({"layout": "detr", "channels": "first"}, "no key"),
        ({"layout": "yolo", "form": "yxyx"}, "form has to be one of xyxy"), ({"layout": "yolo", "nms": 7}, "nms has"),
        ({"layout": "rows", "columns": ["x1", "score"]}, "columns has to be a list"),
        ({"layout": "rows", "most": 0}, "most"),
        ({"layout": "rows", "score": True}, "score has to"), ({"layout": "rows", "size": [3]}, "size has to be"),
        ({"layout": "rows", "names": {1: "a"}}, "names: the classes are numbered 1"),
        ({"layout": "split", "boxes": 3}, "the name of an output"),
        ({"layout": "rows", "names": "/nowhere.txt"}, "cannot be read"), ({"layout": "yolo", "objectness": 1}, "true"),
    ],
)  # fmt: skip
def test_keys_that_say_nothing_are_refused(given, told):
    with pytest.raises(UserError, match=told):
        read_layout(given, "detections")


def test_an_output_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(UserError, match=r"logits: name the output that has logits; it has boxes \[1, \?, 4\]"):
        Decoder(read_layout({"layout": "detr"}, "x"), ["boxes", "odds"], [[1, None, 4], [1, 9, 3]], 3, "f")
    with pytest.raises(UserError, match="there is no output 'out'"):
        Decoder(read_layout({"layout": "yolo", "output": "out"}, "x"), ["output0"], [[1, 7, 9]], 3, "f")


def test_classes_are_found_by_their_names_however_they_are_spelt():
    found = match(["person", "motorbike", "Dining Table", "tv_monitor", "zebra", None, "sofa"],
                  ["diningtable", "person", "motorcycle", "tv", "couch", "bottle"])  # fmt: skip
    assert found.place == {0: 1, 1: 2, 2: 0, 3: 3, 6: 4}
    assert found.missing == ["bottle"] and found.unused == ["zebra"]
    assert str(found) == (
        "5 of its 6 classes are the data set's (motorbike as motorcycle, Dining Table as diningtable, tv_monitor as "
        "tv, sofa as couch); it does not know bottle"
    )
    voc = ["aeroplane", "pottedplant", "hair dryer", "doughnut", "cell phone"]
    coco = ["donut", "cellphone", "airplane", "potted plant", "hair drier"]
    assert match(voc, coco).place == {0: 2, 1: 3, 2: 4, 3: 0, 4: 1}


def test_a_file_may_have_any_number_of_names():
    assert match(["disc"] * 100_000 + ["zebra"], ["disc", "zebra"]).place == {100_000: 1}  # no look at all for each


def test_a_spelling_of_two_classes_is_none_and_the_same_text_goes_first():
    assert match(["sofa", "couch"], ["couch", "sofa"]).place == {0: 1, 1: 0}
    assert match(["Sofa"], ["couch", "sofa"]).place == {}
    assert match(["Sofa", "Couch"], ["sofa "]).place == {}


@pytest.mark.parametrize(
    "text, names",
    [
        ("{0: 'person', 1: \"driver's\"}", {"0": "person", "1": "driver's"}), ("['a', 'b']", ["a", "b"]),
        ('{"0": "a"}', {"0": "a"}), ("__import__('os').system('touch x')", None), ("(" * 5000, None), ("7", None),
        ("{0: __import__('os')}", None), ("[" + "'a'," * 400_000 + "]", None), ("", None),
    ],
)  # fmt: skip
def test_names_in_a_file_are_read_and_never_run(text, names):
    assert _names(text) == names


def test_the_size_of_images_is_read_without_opening_the_file(tmp_path):
    fixed, half = ((1, 3, 320, 640), (320, 640)), ((1, 3, "h", 64), (None, 64))
    for image, size in ((("n", 3, "h", "w"), (None, None)), fixed, half):
        (tmp_path / "x.onnx").write_bytes(convolutions([np.ones([2, 3, 2, 2])], image))
        assert image_size(tmp_path / "x.onnx") == size
    (tmp_path / "x.onnx").write_bytes(b"\x3a\x05abc")
    assert image_size(tmp_path / "x.onnx") is None and image_size(tmp_path / "none.onnx") is None
