"""The picture of a distillation: drawn, not blank, the right boxes marked; samples well chosen."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppkd.demo import picture
from ppkd.study import cells, samples

ROOT = Path(__file__).resolve().parents[2]
CURVES = {"plain": [(1, 0.1), (2, 0.2), (3, 0.25)], "distilled": [(1, 0.2), (2, 0.3), (3, 0.35)]}
BLUE, RED, YELLOW = (0, 114, 178), (213, 94, 0), (240, 228, 66)


@pytest.fixture
def grey(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("RGB", (200, 160), (150, 150, 150)).save(path)
    return str(path)


def sample(image, **detections):
    return {"image": image, "truth": [(20, 30, 80, 90, "disc")], "detections": detections}


def pixels_of(path, colour):
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(image - colour).max(2) <= 6).sum())


def draw(tmp_path, samples, curves=None, name="out.png", **options):
    return picture.demo_picture(tmp_path / name, samples, curves or {}, "title $a_{$", **options)


def test_picture_is_wide_and_not_blank(tmp_path, grey):
    box = (20, 30, 80, 90, "disc", 0.9)
    three = {"teacher": [box], "plain": [], "distilled": [box]}
    path = draw(tmp_path / "new", [sample(grey, **three)] * 3, CURVES, teacher_ap=0.4, note="why")
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 1600 and image.height > 1200
    assert pixels_of(path, (150, 150, 150)) > 12 * 20000  # the image, twelve times
    assert pixels_of(path, BLUE) > 2000 and pixels_of(path, YELLOW) > 500
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.png"]


def test_every_kind_of_box_has_its_colour(tmp_path, grey):
    right, wrong = (22, 30, 80, 92, "disc", 0.9), (22, 30, 80, 92, "ring", 0.9)
    counts = {}
    for name, found in (("right", [right]), ("wrong", [wrong]), ("none", [])):
        path = draw(tmp_path, [sample(grey, plain=found)], name=f"{name}.png")
        counts[name] = np.array([pixels_of(path, c) for c in (BLUE, RED, YELLOW)])
    # the legend has one of each
    least = np.min(list(counts.values()), 0)
    more = {name: (count > least + 100).tolist() for name, count in counts.items()}
    assert more == {
        "right": [True, False, False],
        "wrong": [False, True, True],
        "none": [False, False, True],
    }


def test_curves_and_teacher_are_drawn(tmp_path):
    bare = draw(tmp_path, [], {"plain": CURVES["plain"]}, name="a.png")
    both = draw(tmp_path, [], CURVES, name="b.png", teacher_ap=0.5)
    orange = (230, 159, 0)
    assert pixels_of(bare, orange) > 500 and pixels_of(bare, BLUE) < 50
    assert pixels_of(both, orange) > 500 and pixels_of(both, BLUE) > 500
    black = [pixels_of(p, (0, 0, 0)) for p in (bare, both)]
    assert black[1] > black[0] + 500


def test_columns_are_those_that_there_are(tmp_path, grey):
    one = Image.open(draw(tmp_path, [sample(grey, plain=[])], name="a.png"))
    three = {"teacher": [], "plain": [], "distilled": []}
    four = Image.open(draw(tmp_path, [sample(grey, **three)], name="b.png"))
    assert one.height > four.height and one.width == four.width == 1600


def test_odd_input_is_drawn(tmp_path, grey):
    odd = {"image": grey, "truth": [], "detections": {"plain": [(-9, -9, 400, 3, "$a_{$", 0.4)]}}
    draw(tmp_path, [odd], {"plain": [(0, 0.0)]}, teacher_ap=0.0)
    draw(tmp_path, [sample(grey)], {"plain": [], "distilled": [(5, 1.0)]})


def test_nothing_to_draw_and_percent_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        draw(tmp_path, [])
    with pytest.raises(ValueError, match="0..1"):
        draw(tmp_path, [], {"plain": [(1, 20.5)]})
    with pytest.raises(ValueError, match="0..1"):
        draw(tmp_path, [], CURVES, teacher_ap=47)


def test_the_same_bytes_twice(tmp_path, grey):
    samples = [sample(grey, plain=[(22, 30, 80, 92, "disc", 0.9)])]
    first = Path(draw(tmp_path, samples, CURVES, name="a.png")).read_bytes()
    assert Path(draw(tmp_path, samples, CURVES, name="b.png")).read_bytes() == first


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, ppkd.demo.picture; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_labels_keep_apart():
    class Axes:
        def text(self, *_, **__):
            pass

    taken = []
    # four detections of one place, then two that begin or end outside the picture
    for box in [(50, 50, 120, 120)] * 4 + [(-20, -9, -2, 20), (190, 190, 260, 230)]:
        cells._draw_label(Axes(), "found", box, "disc 0.90", 1.0, (200, 200), taken)
    assert len(taken) == 6
    assert all(samples.iou(a, b) == 0 for i, a in enumerate(taken) for b in taken[:i])
    assert all(x1 >= 0 and y1 >= 0 and x2 <= 200 and y2 <= 200 for x1, y1, x2, y2 in taken)


def test_labels_without_room_are_left_out_and_counted(grey):
    from matplotlib.figure import Figure
    from PIL import Image

    boxes = [(22, 30, 80, 92, "disc", 0.9 - i / 100) for i in range(12)]
    shown = sample(grey, plain=boxes)
    axes = Figure().add_subplot()
    caption = cells.draw_cell(axes, Image.open(shown["image"]), shown, "plain", 0.6)
    assert caption.endswith(f", {12 - len(axes.texts)} labels left out") and 1 < len(axes.texts) < 12
    assert axes.texts[0].get_text() == "disc 0.90", "the best have their labels"


# ---- matching ----------------------------------------------------------------------------------


def test_an_object_is_found_once_and_by_the_best_score():
    truth = [(0, 0, 10, 10, "disc")]
    boxes = [(0, 0, 10, 10, "disc", 0.5), (0, 0, 10, 9, "disc", 0.8)]
    assert samples.match(truth, boxes) == ([True], [False, True])


def test_a_detection_takes_the_object_it_covers_best():
    truth = [(0, 0, 10, 10, "disc"), (2, 0, 12, 10, "disc")]
    found, correct = samples.match(truth, [(2, 0, 12, 10, "disc", 0.9)])
    assert found == [False, True] and correct == [True]


@pytest.mark.parametrize(
    "box, good",
    [
        ((0, 0, 10, 5, "disc", 0.9), True),  # exactly 0.5
        ((0, 0, 10, 4.9, "disc", 0.9), False),
        ((0, 0, 10, 10, "ring", 0.9), False),
        ((20, 20, 30, 30, "disc", 0.9), False),
    ],
)
def test_class_and_overlap_must_fit(box, good):
    assert samples.match([(0, 0, 10, 10, "disc")], [box]) == ([good], [good])


# ---- choice of samples -------------------------------------------------------------------------


@pytest.fixture
def truth(tmp_path):
    """Five pictures of three objects each; the last has a crowd box as well."""
    boxes = [(i, [40.0 * k, 0.0, 30.0, 30.0]) for i in range(1, 6) for k in range(3)]
    entries = [
        {"id": n, "image_id": i, "category_id": 7, "bbox": box, "area": 900.0, "iscrowd": 0}
        for n, (i, box) in enumerate(boxes, 1)
    ]
    entries.append({**entries[-1], "id": 99, "bbox": [0.0, 0.0, 200.0, 200.0], "iscrowd": 1})
    coco = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 200} for i in range(1, 6)],
        "annotations": entries,
        "categories": [{"id": 7, "name": "disc"}],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(coco))
    return path


def results(found, score=0.9):
    """{image: number of objects found} as COCO results."""
    return [
        {"image_id": i, "category_id": 7, "bbox": [40.0 * k, 0.0, 30.0, 30.0], "score": score}
        for i, number in found.items()
        for k in range(number)
    ]


def chosen(samples):
    return [int(Path(s["image"]).stem) for s in samples]


def test_pictures_with_the_greatest_difference_come_first(truth):
    models = {
        "plain": results({1: 3, 2: 1, 3: 0, 4: 3, 5: 2}),
        "distilled": results({1: 3, 2: 2, 3: 3, 4: 1, 5: 2}),
    }
    # differences 0, 1, 3, -2 and 0: the fourth is better without distillation and counts as well
    assert chosen(samples.pick_samples(truth, "d", models)) == [3, 4, 2, 1]
    assert chosen(samples.pick_samples(truth, "d", models, count=9)) == [3, 4, 2, 1, 5]
    backwards = {name: found[::-1] for name, found in reversed(models.items())}
    assert chosen(samples.pick_samples(truth, "d", backwards)) == [3, 4, 2, 1]


def test_low_scores_do_not_count(truth):
    models = {"plain": results({2: 1}, 0.3), "distilled": results({1: 3}, 0.29)}
    found = samples.pick_samples(truth, "d", models, count=1)
    assert chosen(found) == [2] and len(found[0]["detections"]["plain"]) == 1
    found = samples.pick_samples(truth, "d", models, count=1, score=0.2)
    assert chosen(found) == [1] and len(found[0]["detections"]["distilled"]) == 3


def test_a_sample_has_corners_names_and_no_crowd(truth):
    models = {"plain": [], "distilled": results({5: 2}), "teacher": results({5: 1})}
    (found,) = samples.pick_samples(truth, Path("d"), models, count=1)
    assert Path(found["image"]) == Path("d/5.jpg")
    assert found["truth"] == [(40.0 * k, 0, 40.0 * k + 30, 30, "disc") for k in range(3)]
    assert list(found["detections"]) == ["teacher", "plain", "distilled"]
    assert found["detections"]["distilled"][1] == (40.0, 0, 70.0, 30, "disc", 0.9)


def test_wrong_models_and_results_are_refused(truth):
    with pytest.raises(ValueError, match="distilled"):
        samples.pick_samples(truth, "d", {"plain": []})
    with pytest.raises(ValueError, match="other"):
        samples.pick_samples(truth, "d", {"plain": [], "distilled": [], "other": []})
    with pytest.raises(ValueError, match="image 6"):
        samples.pick_samples(truth, "d", {"plain": [], "distilled": results({6: 1})})


def test_picked_samples_can_be_drawn(tmp_path, truth):
    Image.new("RGB", (200, 160), (150, 150, 150)).save(tmp_path / "1.jpg")
    models = {"plain": results({1: 1}), "distilled": results({1: 3})}
    draw(tmp_path, samples.pick_samples(truth, tmp_path, models, count=1), CURVES)
