"""Pictures of what was found: one colour a class, labels inside of the image that can be read."""

import numpy as np
import pytest
from PIL import Image

from ppkd.training import drawing
from ppkd.training.drawing import draw_boxes, ink

NAMES = {1: "car", 2: "man", 7: "dog"}


def drawn(*entries, size=(200, 120), threshold=0.5):
    image = Image.new("RGB", size, "#7f7f7f")
    draw_boxes(image, [dict(zip(("category_id", "score", "bbox"), entry)) for entry in entries], NAMES, threshold)
    return np.asarray(image)


def colour_at(pixels, x, y):
    return "#" + "".join(f"{value:02x}" for value in pixels[y, x])


def test_a_class_has_one_colour_whatever_else_is_in_the_image():
    alone = drawn((7, 0.9, [40, 50, 60, 50]))
    beside = drawn((1, 0.9, [120, 50, 60, 50]), (7, 0.8, [40, 50, 60, 50]))
    assert colour_at(alone, 70, 100) == colour_at(beside, 70, 100) != colour_at(beside, 150, 100)


def test_what_is_below_the_threshold_is_not_drawn():
    assert (drawn((1, 0.4, [40, 50, 60, 50])) == 127).all()
    assert (drawn((1, 0.4, [40, 50, 60, 50]), threshold=0.3) != 127).any()


@pytest.mark.parametrize("box", [[0, 0, 30, 20], [180, 0, 20, 120], [150, 110, 50, 10], [-10, -10, 230, 150]])
def test_a_label_lies_inside_of_the_image(box, monkeypatch):
    places, plain = [], drawing._place
    monkeypatch.setattr(drawing, "_place", lambda *given: places.append(plain(*given)) or places[-1])
    drawn((1, 0.9, box))
    (x1, y1, x2, y2), = places
    assert 0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 120


def test_labels_give_way_to_one_another(monkeypatch):
    places, plain = [], drawing._place
    monkeypatch.setattr(drawing, "_place", lambda *given: places.append(plain(*given)) or places[-1])
    drawn((1, 0.9, [60, 40, 60, 50]), (2, 0.8, [60, 40, 60, 50]), (7, 0.7, [61, 41, 60, 50]))
    assert [drawing._shared(a, b) for i, a in enumerate(places) for b in places[:i]] == [0, 0, 0]


def test_where_there_is_no_room_the_best_label_lies_on_top(monkeypatch):
    places, plain = [], drawing._place
    monkeypatch.setattr(drawing, "_place", lambda *given: places.append(plain(*given)) or places[-1])
    crowd = [(7, 0.8 - i / 100, [60, 40, 60, 50]) for i in range(16)]
    among, alone = drawn((1, 0.9, [60, 40, 60, 50]), *crowd), drawn((1, 0.9, [60, 40, 60, 50]))
    x1, y1, x2, y2 = map(int, places[0])
    assert any(drawing._shared(places[0], other) for other in places[1:-1])
    assert (among[y1 : y2 + 1, x1 : x2 + 1] == alone[y1 : y2 + 1, x1 : x2 + 1]).all()


@pytest.mark.parametrize("colour", drawing._COLOURS)
def test_text_can_be_read_on_every_colour(colour):
    """A contrast of 4.5 is what WCAG wants of text."""
    def luminance(text):
        values = [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        values = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), values))

    light, dark = sorted((luminance(colour), luminance(ink(colour))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_turned_box_has_four_corners():
    assert (drawn((1, 0.9, [50, 30, 120, 50, 100, 100, 30, 80])) != 127).any()
