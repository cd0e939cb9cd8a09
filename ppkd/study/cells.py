"""Draws one image with the boxes of its objects or of what a detector found in it."""

from __future__ import annotations

from ppkd.study.samples import iou, match

__all__ = ["LEGEND", "OKABE_ITO", "draw_box", "draw_cell"]

# Okabe-Ito: told apart by colour-blind readers, and each has its own line style as well.
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "red": "#D55E00",
    "purple": "#CC79A7",
}
_BOXES = {  # kind -> (colour, halo, line style, colour of the text on a label)
    "truth": (OKABE_ITO["black"], "white", "-", "white"),
    "found": (OKABE_ITO["blue"], "white", "-", "white"),
    "wrong": (OKABE_ITO["red"], "white", (0, (1, 1)), "white"),
    "missed": (OKABE_ITO["yellow"], "black", (0, (3.5, 2)), "black"),
}
# What each kind of box means.
LEGEND = (
    ("found", "correct (IoU 0.5 or more, with its score)"),
    ("missed", "missed object"),
    ("wrong", "wrong: no such object there, or one found already"),
)
_POINT = 1 / 72  # inches
# As little of a label may lie under another: its rim.
_COVERED = 0.03


def draw_cell(axes, image, sample, name, width):
    """Draw a sample as one model saw it, or its objects.

    Args:
        axes: of matplotlib, filled by the image.
        image: of PIL.
        sample: of `samples.pick_samples`.
        name: a key of its detections, or ``truth``.
        width: of the axes, in inches.

    Returns:
        A caption: what was found.
    """
    axes.imshow(image, interpolation="bicubic", extent=(0, image.width, image.height, 0))
    axes.set(xlim=(0, image.width), ylim=(image.height, 0), xticks=[], yticks=[])
    truth = sample["truth"]
    unit = image.width / width * _POINT  # pixels of the image in a point of the page
    if name == "truth":
        items = [("truth", t, str(t[4])) for t in truth]
        caption = f"{len(truth)} object{'' if len(truth) == 1 else 's'}"
    else:
        detections = sample["detections"].get(name, [])
        found, correct = match(truth, detections)
        pairs = sorted(zip(detections, correct, strict=True), key=lambda p: p[0][5])
        # wrong ones first, so that the correct ones lie on top
        items = [("wrong", d, f"{d[4]} {d[5]:.2f}") for d, good in pairs if not good]
        items += [("missed", t, "") for t, got in zip(truth, found, strict=True) if not got]
        items += [("found", d, f"{d[4]} {d[5]:.2f}") for d, good in pairs if good]
        caption = f"{sum(found)} of {len(truth)} found" if truth else "no object"
        caption += f", {len(correct) - sum(correct)} wrong"
    labels, left = [], 0
    for kind, box, _ in items:
        draw_box(axes, kind, box)
    for kind, box, text in items[::-1]:
        if text:
            left += not _draw_label(axes, kind, box, text, unit, (image.width, image.height), labels)
    return caption + (f", {left} label{'s' * (left > 1)} left out" if left else "")


def draw_box(axes, kind, box):
    """Draw a box ``x1 y1 x2 y2`` of a kind: ``truth``, ``found``, ``wrong`` or ``missed``."""
    from matplotlib.patches import Rectangle

    colour, halo, style, _ = _BOXES[kind]
    for line in ({"ec": halo, "lw": 2.8}, {"ec": colour, "lw": 1.5, "ls": style}):
        axes.add_patch(Rectangle(box[:2], box[2] - box[0], box[3] - box[1], fill=False, **line))


def _draw_label(axes, kind, box, text, unit, size, taken):
    """Writes `text` at a corner of the box where it covers no other label; where there is none, it is left out, and
    False is returned."""
    wide, tall = (0.56 * 6 * len(text) + 2) * unit, 7.4 * unit
    places = []
    for y in (box[1] - tall - unit, box[3] + unit, box[1] + unit, box[3] - tall - unit):
        for x in (box[0], box[2] - wide):
            x = min(max(x, 0), size[0] - wide)
            y = min(max(y, 0), size[1] - tall)
            places.append((x, y, x + wide, y + tall))
    # earlier places are better; min takes the first of equals
    place = min(places, key=lambda p: sum(iou(p, t) for t in taken))
    if max((iou(place, other) for other in taken), default=0) > _COVERED:
        return False
    taken.append(place)
    colour, _, _, ink = _BOXES[kind]
    plate = {"facecolor": colour, "edgecolor": "none", "alpha": 0.85, "pad": 0.7}
    x, y = place[0] + unit, place[1] + tall / 2
    axes.text(x, y, text, fontsize=6, color=ink, va="center", parse_math=False, bbox=plate)
    return True
