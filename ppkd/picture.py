"""One picture of a distillation: what teacher, plain and distilled student see, and their curves.

Needs matplotlib, imported only when a picture is drawn.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

__all__ = ["demo_picture", "pick_samples"]

_MODELS = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}

# Okabe-Ito: told apart by colour-blind readers, and each has its own line style as well
_BLACK, _ORANGE, _BLUE, _RED, _YELLOW = "#000000", "#E69F00", "#0072B2", "#D55E00", "#F0E442"
_BOXES = {  # kind -> (colour, halo, line style, colour of the text on a label)
    "truth": (_BLACK, "white", "-", "white"),
    "found": (_BLUE, "white", "-", "white"),
    "wrong": (_RED, "white", (0, (1, 1)), "white"),
    "missed": (_YELLOW, "black", (0, (3.5, 2)), "black"),
}
_CURVES = {"plain": (_ORANGE, "--", "s"), "distilled": (_BLUE, "-", "o")}

_WIDTH, _DPI = 8.0, 200  # inches and dots an inch: 1600 px
_MARGIN, _GAP, _TITLE, _HEADING, _CAPTION = 0.16, 0.07, 0.42, 0.24, 0.26
_LEGEND, _PLOT = 0.42, 2.6
_POINT = 1 / 72  # inches
_IOU = 0.5  # least overlap of a detection with its object


# ---- matching and choice -----------------------------------------------------------------------


def _iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _match(truth, detections):
    """Pairs detections with objects of their class, best score first, each object once.

    Returns (found, correct): for every object whether a detection got it, for every detection
    whether it got an object.
    """
    found, correct = [False] * len(truth), [False] * len(detections)
    for d, box in sorted(enumerate(detections), key=lambda pair: -pair[1][5]):
        overlap = {
            t: _iou(target, box)
            for t, target in enumerate(truth)
            if not found[t] and target[4] == box[4]
        }
        best = max(overlap, key=overlap.get, default=None)
        if best is not None and overlap[best] >= _IOU:
            found[best] = correct[d] = True
    return found, correct


def pick_samples(
    annotations_json: str | os.PathLike,
    image_dir: str | os.PathLike,
    detections_by_model: Mapping[str, Sequence[Mapping]],
    count: int = 4,
    score: float = 0.3,
) -> list[dict]:
    """The pictures on which plain and distilled student differ most, as `demo_picture` wants them.

    The difference is that of the numbers of objects found at IoU 0.5, in either direction: where
    the plain student is the better one, that is shown too. Ties go to the picture with more
    objects, then to the lower image id.

    Args:
        annotations_json: COCO file of the pictures. Crowd boxes are left out.
        image_dir: the folder of its `file_name`s.
        detections_by_model: "plain", "distilled" and perhaps "teacher": COCO results, that is
            dicts of image_id, category_id, bbox (x, y, width, height in pixels) and score.
        count: number of pictures, fewer if there are fewer.
        score: detections below it are left out.

    Returns:
        A list of {"image": path, "truth": [...], "detections": {model: [...]}}.

    Raises:
        ValueError: a model is missing or unknown, or a result belongs to no image or category.
    """
    unknown = sorted(set(detections_by_model) - set(_MODELS))
    absent = [name for name in ("plain", "distilled") if name not in detections_by_model]
    if unknown or absent:
        raise ValueError(f"detections of {list(_MODELS)}: missing {absent}, unknown {unknown}")
    with open(annotations_json, encoding="utf-8") as file:
        coco = json.load(file)
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    images = {image["id"]: image for image in coco["images"]}
    truth = defaultdict(list)
    for entry in coco["annotations"]:
        if not entry.get("iscrowd"):
            truth[entry["image_id"]].append((*_corners(entry), classes[entry["category_id"]]))
    seen = {name: defaultdict(list) for name in _MODELS if name in detections_by_model}
    for name, by_image in seen.items():
        for entry in detections_by_model[name]:
            if entry["image_id"] not in images or entry["category_id"] not in classes:
                where = f"image {entry['image_id']}, category {entry['category_id']}"
                raise ValueError(f"a detection of {name} ({where}) is not in {annotations_json}")
            if entry["score"] >= score:
                box = (*_corners(entry), classes[entry["category_id"]], float(entry["score"]))
                by_image[entry["image_id"]].append(box)

    def rank(image_id):
        objects = truth[image_id]
        plain, distilled = (sum(_match(objects, seen[m][image_id])[0]) for m in _CURVES)
        return -abs(distilled - plain), -len(objects), image_id

    return [
        {
            "image": os.path.join(os.fspath(image_dir), images[i]["file_name"]),
            "truth": truth[i],
            "detections": {name: by_image[i] for name, by_image in seen.items()},
        }
        for i in sorted(images, key=rank)[:count]
    ]


def _corners(entry):
    x, y, w, h = (float(v) for v in entry["bbox"])
    return x, y, x + w, y + h


# ---- drawing -----------------------------------------------------------------------------------


def demo_picture(
    path: str | os.PathLike,
    samples: Sequence[Mapping],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    teacher_ap: float | None = None,
    note: str = "",
) -> str:
    """Writes a PNG, 1600 px wide: a row for every sample, below it AP over epochs.

    The columns are ground truth, teacher, plain and distilled student (those that the samples
    have). A solid blue box is a correct detection (IoU 0.5), a dotted red one a wrong one, a dashed
    yellow one an object that was missed.

    Args:
        path: the file to write; its folder is made.
        samples: {"image": path, "truth": [(x1, y1, x2, y2, class name)], "detections":
            {"teacher" | "plain" | "distilled": [(x1, y1, x2, y2, class name, score)]}}, pixels.
            All detections given are drawn. See `pick_samples`.
        curves: {"plain": [(epoch, AP)], "distilled": [...]}, AP in 0..1; may be empty.
        title: heading of the picture.
        teacher_ap: AP of the teacher, 0..1, drawn as a horizontal line.
        note: a line of small print under the title, such as how the samples were chosen.

    Returns:
        `path`.

    Raises:
        ValueError: neither samples nor curves, or an AP outside 0..1.
        ImportError: no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    curves = {name: sorted(curves[name]) for name in _CURVES if curves.get(name)}
    if not samples and not curves:
        raise ValueError("nothing to draw: neither samples nor curves")
    _check_ap([ap for points in curves.values() for _, ap in points])
    _check_ap([] if teacher_ap is None else [teacher_ap])

    columns = ["truth", *(m for m in _MODELS if any(m in s["detections"] for s in samples))]
    cell = (_WIDTH - 2 * _MARGIN - _GAP * (len(columns) - 1)) / len(columns)
    pictures = []
    for sample in samples:
        with Image.open(sample["image"]) as image:
            pictures.append(image.convert("RGB"))
    heights = [cell * p.height / p.width for p in pictures]
    top = _TITLE + (0.18 if note else 0)
    height = top + _MARGIN
    if samples:
        height += _HEADING + sum(heights) + _CAPTION * len(heights) + _LEGEND
    if curves:
        height += _PLOT
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    page = _Page(figure, height)
    page.text(_MARGIN, 0.27, title, 13, weight="bold")
    page.text(_MARGIN, 0.45, note, 7.5, color="#444444")

    y = top
    if samples:
        y += _HEADING
        for column, name in enumerate(columns):
            x = _MARGIN + column * (cell + _GAP)
            page.text(x, y - 0.08, _MODELS.get(name, "ground truth"), 10, weight="bold")
            below = y
            for sample, image, tall in zip(samples, pictures, heights, strict=True):
                _draw_cell(page, (x, below, cell, tall), image, sample, name)
                below += tall + _CAPTION
        y += sum(heights) + _CAPTION * len(heights)
        _draw_legend(page, y + 0.12)
        y += _LEGEND
    if curves:
        box = (_MARGIN + 0.5, y + 0.1, _WIDTH - 2 * _MARGIN - 1.75, _PLOT - 0.55)
        _draw_curves(page.axes(*box), curves, teacher_ap)
    path = os.fspath(path)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _check_ap(values):
    bad = [ap for ap in values if not 0 <= ap <= 1]
    if bad:
        raise ValueError(f"AP is a share in 0..1, not {bad[0]}")


class _Page:
    """A figure measured in inches from its upper left corner."""

    def __init__(self, figure, height):
        self.figure, self.height = figure, height

    def axes(self, x, y, w, h):
        down = 1 - (y + h) / self.height
        return self.figure.add_axes((x / _WIDTH, down, w / _WIDTH, h / self.height))

    def text(self, x, y, text, size, **style):
        place = x / _WIDTH, 1 - y / self.height
        self.figure.text(*place, text, fontsize=size, parse_math=False, **style)


def _draw_cell(page, place, image, sample, name):
    axes = page.axes(*place)
    axes.imshow(image, interpolation="bicubic", extent=(0, image.width, image.height, 0))
    axes.set(xlim=(0, image.width), ylim=(image.height, 0), xticks=[], yticks=[])
    truth = sample["truth"]
    unit = image.width / place[2] * _POINT  # pixels of the image in a point of the page
    if name == "truth":
        items = [("truth", t, str(t[4])) for t in truth]
        caption = f"{len(truth)} object{'' if len(truth) == 1 else 's'}"
    else:
        detections = sample["detections"].get(name, [])
        found, correct = _match(truth, detections)
        pairs = sorted(zip(detections, correct, strict=True), key=lambda p: p[0][5])
        # wrong ones first, so that the correct ones lie on top
        items = [("wrong", d, f"{d[4]} {d[5]:.2f}") for d, good in pairs if not good]
        items += [("missed", t, "") for t, got in zip(truth, found, strict=True) if not got]
        items += [("found", d, f"{d[4]} {d[5]:.2f}") for d, good in pairs if good]
        caption = f"{sum(found)} of {len(truth)} found" if truth else "no object"
        caption += f", {len(correct) - sum(correct)} wrong"
    labels = []
    for kind, box, _ in items:
        _draw_box(axes, kind, box)
    for kind, box, text in items[::-1]:
        if text:
            _draw_label(axes, kind, box, text, unit, (image.width, image.height), labels)
    page.text(place[0], place[1] + place[3] + 0.14, caption, 8)


def _draw_box(axes, kind, box):
    from matplotlib.patches import Rectangle

    colour, halo, style, _ = _BOXES[kind]
    for line in ({"ec": halo, "lw": 2.8}, {"ec": colour, "lw": 1.5, "ls": style}):
        axes.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, **line))


def _draw_label(axes, kind, box, text, unit, size, taken):
    """Writes `text` at a corner of the box where it covers the fewest other labels."""
    wide, tall = (0.56 * 6 * len(text) + 2) * unit, 7.4 * unit
    places = []
    for y in (box[1] - tall - unit, box[3] + unit, box[1] + unit, box[3] - tall - unit):
        for x in (box[0], box[2] - wide):
            x = min(max(x, 0), size[0] - wide)
            y = min(max(y, 0), size[1] - tall)
            places.append((x, y, x + wide, y + tall))
    # earlier places are better; min takes the first of equals
    place = min(places, key=lambda p: sum(_iou(p, t) for t in taken))
    taken.append(place)
    colour, _, _, ink = _BOXES[kind]
    plate = {"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 0.7}
    x, y = place[0] + unit, place[1] + tall / 2
    axes.text(x, y, text, fontsize=6, color=ink, va="center", parse_math=False, bbox=plate)


def _draw_legend(page, y):
    axes = page.axes(_MARGIN, y, _WIDTH - 2 * _MARGIN, 0.2)
    axes.set(xlim=(0, _WIDTH - 2 * _MARGIN), ylim=(0.2, 0))
    axes.axis("off")
    entries = (
        ("found", "correct (IoU 0.5 or more, with its score)"),
        ("missed", "missed object"),
        ("wrong", "wrong: no such object there, or one found already"),
    )
    for (kind, text), x in zip(entries, (0.02, 3.05, 4.45), strict=True):
        _draw_box(axes, kind, (x, 0.04, x + 0.22, 0.16))
        axes.text(x + 0.3, 0.105, text, fontsize=8, va="center")


def _draw_curves(axes, curves, teacher_ap):
    ends = []
    for name, points in curves.items():
        colour, style, marker = _CURVES[name]
        epochs, values = zip(*((e, 100 * ap) for e, ap in points), strict=True)
        every = max(1, len(points) // 12)
        axes.plot(epochs, values, style, color=colour, lw=2, marker=marker, ms=4.5, markevery=every)
        ends.append((values[-1], f"{_MODELS[name]}\n{values[-1]:.1f}", colour, epochs[-1]))
    if teacher_ap is not None:
        axes.axhline(100 * teacher_ap, color=_BLACK, lw=1.4, ls=":")
        right = axes.get_xlim()[1]
        ends.append((100 * teacher_ap, f"teacher\n{100 * teacher_ap:.1f}", _BLACK, right))
    axes.set_ylim(0, max(1.0, 1.12 * max(axes.dataLim.y1, *(end[0] for end in ends))))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("AP on the validation set (%)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _label_ends(axes, ends)


def _label_ends(axes, ends):
    """Names at the right end of the lines, moved apart where they would overlap."""
    high = axes.get_ylim()[1]
    least = 0.15 * high
    ends.sort(key=lambda end: end[0])
    heights = []
    for value, *_ in ends:
        heights.append(max(value, heights[-1] + least) if heights else value)
    limit = high
    for i in reversed(range(len(heights))):  # what was pushed out above comes down again
        heights[i] = min(heights[i], limit)
        limit = heights[i] - least
    for (value, text, colour, last), height in zip(ends, heights, strict=True):
        # orange text on white is hard to read: the leader carries the colour, the text is dark
        leader = {"arrowstyle": "-", "color": colour, "lw": 1.2, "shrinkA": 1, "shrinkB": 0}
        style = {"fontsize": 8.5, "weight": "bold", "va": "center", "color": "#222222"}
        place = {"textcoords": "axes fraction", "annotation_clip": False, "arrowprops": leader}
        axes.annotate(text, (last, value), (1.03, height / high), **place, **style)
