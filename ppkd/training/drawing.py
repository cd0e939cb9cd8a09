"""Draws what was found on an image: a class has one colour on all images, and a label can be read on any ground."""

import functools
import os

from PIL import ImageDraw, ImageFont

# Told apart by most; classes beyond them begin anew.
_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#469990", "#9a6324",
    "#800000", "#808000", "#000075", "#ffe119", "#aaffc3", "#dcbeff", "#fabed4", "#ffd8b1", "#a9a9a9", "#000000",
)  # fmt: skip


def draw_boxes(image, entries, names, threshold):
    """Draw boxes with their class and score.

    Args:
        image: of PIL, RGB; changed in place.
        entries: results as ppdet has them: ``category_id``, ``score``, ``bbox`` as x, y, width, height in pixels or the
            four corners of a turned box.
        names: id of a category -> its name; their order gives the colours.
        threshold: lower scores are not drawn.
    """
    draw, places = ImageDraw.Draw(image), {category: place for place, category in enumerate(sorted(names))}
    thick = max(2, round(max(image.size) / 320))
    font, taken = _font(max(11, round(max(image.size) / 45))), []
    shown = sorted((e for e in entries if e["score"] >= threshold and "bbox" in e), key=lambda e: e["score"])
    for entry in shown:
        colour = _COLOURS[places.get(entry["category_id"], 0) % len(_COLOURS)]
        corners = _corners(entry["bbox"])
        draw.line([*corners, corners[0]], fill=colour, width=thick, joint="curve")
    labels = []
    for entry in reversed(shown):  # the best first: the others give way
        colour = _COLOURS[places.get(entry["category_id"], 0) % len(_COLOURS)]
        text = f"{names.get(entry['category_id'], entry['category_id'])} {entry['score']:.2f}"
        place = _place(draw.textbbox((0, 0), text, font=font), _corners(entry["bbox"]), image.size, taken)
        taken.append(place)
        labels.append((place, colour, text))
    for place, colour, text in reversed(labels):  # and where there is no room, the best lie on top
        draw.rectangle(place, fill=colour)
        draw.text((place[0] + 2, place[1] + 1), text, font=font, fill=ink(colour))


def ink(colour):
    """Black or white, whichever is further from a colour ``#rrggbb`` (WCAG's relative luminance)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"


def _corners(box):
    if len(box) == 8:
        return [(box[i], box[i + 1]) for i in range(0, 8, 2)]
    x, y, width, height = box
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _place(text, corners, size, taken):
    """Where a label goes: inside of the image, at the box, on as little of other labels as can be."""
    wide, tall = text[2] + 4, text[3] + 3
    xs, ys = zip(*corners)
    found = []
    for y in (min(ys) - tall, min(ys), max(ys) - tall, max(ys)):
        for x in (min(xs), max(xs) - wide):
            left = min(max(x, 0), max(size[0] - wide, 0))
            top = min(max(y, 0), max(size[1] - tall, 0))
            found.append((left, top, left + wide, top + tall))
    return min(found, key=lambda place: sum(_shared(place, other) for other in taken))


def _shared(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


@functools.cache
def _font(size):
    import matplotlib

    path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size) if os.path.isfile(path) else ImageFont.load_default()
