"""What ppdet keeps of an annotation file, what it loses and why; and what only all entries together show."""

import json

import cv2
import numpy as np
import pytest

from ppkd.bridge import datasets
from ppkd.bridge.annotation_file import category_names
from ppkd.bridge.annotations import Found, weigh
from ppkd.bridge.between import compare_categories, same_files
from ppkd.bridge.coco import Tidied
from ppkd.bridge.coco_reading import coco_class
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.missing import cure_of
from ppkd.bridge.workspace import scope
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from ppkd.terminal.log import hushed, logger

SQUARE = [[10, 10, 30, 10, 30, 30]]


def content(boxes, **more):
    """A file of 64 x 48 pixels with such boxes in turn in its two images."""
    made = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n + 1, "image_id": n % 2 + 1, "category_id": 1, "bbox": list(box), "area": box[2] * box[3],
             "iscrowd": 0, "segmentation": SQUARE}
            for n, box in enumerate(boxes)
        ],
    }  # fmt: skip
    return made | more


TEN = [(n, n, 12, 9 + n) for n in range(10)]


def judged(made, **options):
    found = Found()
    weigh(Tidied(made, found.note), found, **options)
    return found


@pytest.mark.parametrize("kind", ["ignored-box", "empty-box", "negative-box", "box-outside"])
def test_what_evaluation_counts_is_not_said_to_be_left_out(kind, tmp_path, caplog, monkeypatch):
    """pycocotools is asked what it counts."""
    made = content(TEN)
    made["annotations"][0].update(LOSSES[kind] | ({"area": 0} if kind == "empty-box" else {}))
    section, config = validated(made, tmp_path, allow_empty=True)
    monkeypatch.setattr(logger(), "propagate", True)
    with scope(config), caplog.at_level("INFO"):
        open_dataset("EvalDataset", config)
    assert "10 of 10 boxes are evaluated" in caplog.text and "left out" not in caplog.text
    assert evaluated_boxes(coco_class()(section["anno_path"])) == 10


@pytest.mark.parametrize("change", [{"ignore": 1}, {"area": 0}, {"ignore": 1, "area": -1}, {"area": 2e10},
                                    {"bbox": [20, 20, -5, 6], "area": -30}])  # fmt: skip
@pytest.mark.parametrize("changed", [3, 10])
def test_a_validation_set_is_what_pycocotools_counts(change, changed, tmp_path, monkeypatch, caplog):
    """Also where training would lose every box; `area` alone can take one away."""
    made = content(TEN)
    for entry in made["annotations"][:changed]:
        entry.update(change)
    section, config = validated(made, tmp_path, allow_empty=True)
    counted = evaluated_boxes(coco_class()(section["anno_path"]))
    monkeypatch.setattr(logger(), "propagate", True)
    with scope(config), caplog.at_level("INFO"):
        if not counted:
            with pytest.raises(UserError, match="nothing-kept: not one box is left"):
                open_dataset("EvalDataset", config)
            return
        assert len(open_dataset("EvalDataset", config).roidbs) == 2
    lost = changed if "ignore" in change or change["area"] <= 0 else 0
    assert (f"{counted} of 10 boxes are evaluated" in caplog.text) == (lost == 1) and counted in (10, 10 - changed)


@pytest.mark.parametrize("images, told", [((1,), "1 images are left out"), ((), None)])
def test_images_that_ppdet_does_not_evaluate_are_told(images, told, tmp_path, monkeypatch, caplog):
    made = content(TEN)
    for entry in made["annotations"]:
        entry["ignore"] = int(entry["image_id"] in images)
    monkeypatch.setattr(logger(), "propagate", True)
    for allowed in (False, True):
        _, config = validated(made, tmp_path, allow_empty=allowed)
        with scope(config), caplog.at_level("WARNING"):
            assert len(open_dataset("EvalDataset", config).roidbs) == 2 - len(images) * (not allowed)
        assert ("EvalDataset.allow_empty=true" in caplog.text) == bool(told and not allowed)
        caplog.clear()


def validated(made, tmp_path, **more):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(made))
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((48, 64, 3), "uint8"))
    given = {"dataset_dir": str(tmp_path), "image_dir": "", "anno_path": str(path), **more}
    return given, {"EvalDataset": Tagged("COCODataSet", given), "num_classes": 1}


def evaluated_boxes(coco):
    from pycocotools.cocoeval import COCOeval

    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    with hushed():
        run = COCOeval(coco, coco.loadRes(found), "bbox")
        run.evaluate()
    every = [each for each in run.evalImgs if each and list(each["aRng"]) == run.params.areaRng[0]]
    return sum(int((~np.asarray(each["gtIgnore"]).astype(bool)).sum()) for each in every)


LOSSES = {
    "crowd": {"iscrowd": 1},
    "ignored-box": {"ignore": True},
    "empty-box": {"area": -1},
    "negative-box": {"bbox": [20, 20, -5, 6]},
    "box-outside": {"bbox": [5, 50, 5, 5]},
    "no-bbox": {"bbox": []},
    "unknown-image": {"image_id": 77},
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("lost, level", [(1, None), (2, "boxes-lost"), (10, "nothing-kept")])
def test_boxes_that_are_lost_are_counted_by_reason(kind, lost, level):
    made = content(TEN)
    for entry in made["annotations"][:lost]:
        entry.update(LOSSES[kind])
    found = judged(made)
    assert (found.listed, found.kept, found.counts[kind]) == (10, 10 - lost, lost)
    assert [x for x in ("boxes-lost", "nothing-kept") if found.counts[x]] == ([level] if level else [])
    if level:
        assert f"{lost} {kind}" in found.told(level)
    assert bool(found.of("error")) == (level == "nothing-kept")


@pytest.mark.parametrize("update", [{"bbox": [0, 0, 0, 0]}, {"bbox": [5, 5, 1e-6, 4]}, {"bbox": [1e30, 5, 4, 4]}])
def test_boxes_too_small_for_ppdet(update):
    made = content(TEN)
    made["annotations"][0].update(update)
    assert judged(made).counts["empty-box"] == 1


def test_crowds_are_kept_where_they_are_asked_for():
    made = content(TEN)
    made["annotations"][0]["iscrowd"] = 1
    assert judged(made, load_crowd=True).kept == 10


RUNS = {"size": [48, 64], "counts": [48 * 64 - 7, 7]}
MASKS = {
    "polygon": (SQUARE, True), "run lengths": (RUNS, True), "two parts": (SQUARE + SQUARE, True),
    "packed": ({"size": [48, 64], "counts": "Xo0Xo0`Q1"}, True), "unnested": (SQUARE[0], True), "empty": ([], False),
    "missing": (None, False), "two points": ([[1, 1, 9, 9]], False), "odd": ([[1, 1, 9, 9, 5]], False),
    "nothing in it": ([[]], False), "no counts": ({"size": [48, 64]}, False), "words": ([["a"] * 6], False),
    "another size": ({"size": [64, 48], "counts": [48 * 64]}, False), "too short": (RUNS | {"counts": [7]}, False),
    "no run lengths": ({"size": [48, 64], "counts": "abc"}, False), "a line": ([[1, 1, 9, 9, 5, 5]], True),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_masks_are_judged_for_detectors_that_need_them(kind):
    mask, good = MASKS[kind]
    for masks, evaluated, told in ((False, False, None), (True, False, "mask-lost"), (True, True, "no-mask")):
        made = content(TEN)
        made["annotations"][3]["segmentation"] = mask
        found = judged(made, masks=masks, evaluated=evaluated)
        assert found.counts[told] == (told is not None and not good)
        assert found.kept == 10 - found.counts[told]
        assert bool(found.of("error")) == (found.counts["no-mask"] > 0), "evaluation would fail on it"
        assert bool(made["annotations"][3].get("ignore")) == (found.counts[told] > 0), "so ppdet leaves it out"


NO_PIXEL = {
    "run lengths": RUNS | {"counts": [48 * 64]}, "outside": [[70, 5, 80, 5, 80, 9]], "above": [[5, -9, 9, -9, 9, -1]],
    "a point": [[5, 5, 5, 5, 5, 5]], "upright": [[5, 1, 5, 9, 5, 20]], "two": [[5, 5] * 3, [64, 1, 70, 1, 70, 9]],
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_PIXEL)
def test_masks_without_a_pixel_are_left_out_of_training_and_told_of_evaluation(kind):
    for evaluated in (False, True):
        made = content(TEN)
        made["annotations"][3]["segmentation"] = NO_PIXEL[kind]
        found = judged(made, masks=True, evaluated=evaluated)
        told = not evaluated or kind != "run lengths"  # which pycocotools counts as they are
        assert found.counts["empty-mask"] == told and not found.of("error")
        assert found.kept == 10 - (not evaluated) and bool(made["annotations"][3].get("ignore")) == (not evaluated)
    assert not judged(made).of("error", "warning"), "a detector of boxes"


def test_many_boxes_beyond_the_edge():
    centred = [(x + 45, y + 25, w, 2 * h) for x, y, w, h in TEN]
    assert judged(content(centred * 2)).counts["boxes-beyond"] == 1
    few = [(60, 20, 30, 20), *[(n, n, 9, 9) for n in range(30)]]
    found = judged(content(few * 2))
    assert found.counts["box-beyond-edge"] == 2 and not found.counts["boxes-beyond"]


def test_shares_in_place_of_pixels():
    shares = [(x / 64, y / 48, w / 64, h / 48) for x, y, w, h in TEN]
    assert judged(content(shares)).of("error") == ["normalised-boxes"]
    assert not judged(content([*TEN, (0, 0, 1, 1)])).of("error", "warning"), "a tiny box among others"


@pytest.mark.parametrize("others", [2, 5, 10])
def test_shares_of_one_tool_among_pixels_of_another(others):
    shares = [(x / 64, y / 48, w / 64, h / 48) for x, y, w, h in TEN[:others]]
    found = judged(content([*TEN, *shares]))
    assert found.of("error", "warning") == ["some-normalised"]
    assert f"{len(shares)} of {10 + len(shares)} boxes" in found.told("some-normalised")


def test_corners_in_place_of_width_and_height():
    corners = [(x + 10, y + 10, x + w + 30, y + h + 15) for x, y, w, h in TEN]
    found = judged(content(corners))
    assert found.of("error") == ["corner-boxes"] and "none would as corners" in found.told("corner-boxes")
    beyond = [(20, 20, 100, 20), *TEN]
    assert not judged(content(beyond)).of("error"), "one that reaches beyond its image"
    moved = [(-3, -9, 10 + x, 12 + y) for x, y, _, _ in TEN]
    assert judged(content(moved)).of("error", "warning") == ["boxes-beyond"], "none of them would be a corner"


@pytest.mark.parametrize("box", [[5, 5, 1e39, 5], [5, 5, 5, "1e300"], [-(10**40), 5, 5, 5]])
def test_a_number_that_a_tensor_takes_for_infinity_is_none(box):
    made = content(TEN)
    made["annotations"][3]["bbox"] = box
    assert judged(made).of("error") == ["broken-box"]


AREAS = {"shares": lambda a: a / 64 / 48, "1 everywhere": lambda _: 1, "another size's": lambda a: 16 * a}


@pytest.mark.parametrize("kind", AREAS)
def test_areas_that_are_not_of_their_boxes(kind):
    large = [(n, n, 40, 30) for n in range(10)]
    made = content(large)
    made["annotations"][0]["area"] = AREAS[kind](1200)
    assert judged(made).of("error", "warning") == [], "one of ten"
    for entry in made["annotations"][1:5]:
        entry["area"] = AREAS[kind](entry["area"])
    assert judged(made).of("error", "warning") == ["unlike-areas"]


def test_areas_of_masks_may_be_a_small_part_of_their_boxes():
    made = content(TEN)
    for entry in made["annotations"]:
        entry["area"] *= 0.02
    assert not judged(made).of("error", "warning")


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [2, -1, 10**30, "2", 0.5])
def test_flags_are_0_or_1(key, value):
    """pycocotools' AP is another with each value."""
    made = content(TEN)
    made["annotations"][3][key] = value
    found = judged(made)
    assert found.of("error") == ["broken-annotation"] and "neither 0 nor 1" in found.told("broken-annotation")


def test_a_category_of_no_box_is_told_for_training():
    made = content(TEN, categories=[{"id": 0, "name": "fish-aquarium"}, {"id": 1, "name": "fish"}])
    found = judged(made)
    assert found.of("warning") == ["unused-category"] and "fish-aquarium (id 0)" in found.told("unused-category")
    assert not judged(made, evaluated=True).of("warning")


def test_copies_and_names_twice():
    made = content([*TEN, *TEN[:2]], categories=[{"id": 1, "name": "car"}, {"id": 2, "name": "car"}])
    made["annotations"][0]["category_id"] = 2
    found = judged(made)
    assert found.counts["copied-box"] == 1, "one of the two is of another class"
    assert found.counts["same-name"] == 1 and found.kept == 12


def write(path, names, first=1, **more):
    categories = [{"id": first + n, "name": name} for n, name in enumerate(names)]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories} | more))
    return {"dataset_dir": str(path.parent), "anno_path": path.name}


@pytest.mark.parametrize(
    "theirs, kind",
    [
        (["cat", "dog", "emu"], None),
        (["Cat", " dog", "emu"], None),
        (["cat", "dog"], "category-missing"),
        (["dog", "cat", "emu"], "category-order"),
        (["dog", "emu"], "category-order"),  # an export of those that occur
        (["all", "cat", "dog", "emu"], "category-order"),  # one of the two has a root
        (["Katze", "Hund", "Emu"], "category-names"),
        (["cat", "dog", "emu", "fox"], "category-names"),
    ],
)
def test_classes_of_two_sets(theirs, kind, tmp_path):
    config = {
        "TrainDataset": write(tmp_path / "a.json", ["cat", "dog", "emu"]),
        "EvalDataset": write(tmp_path / "b.json", theirs, first=5),
    }
    found = compare_categories(config)
    assert (found and found[0]) == kind
    if kind:
        assert "do not list the same categories in the same order: " in found[1]


def test_categories_are_found_wherever_they_stand(tmp_path):
    path = tmp_path / "a.json"
    write(path, ["x", "y"])
    assert category_names(str(path)) == ["x", "y"]
    info = {"info": {"categories": ["no", "list", "of", "these"]}}
    write(path, ["x", "y"], **info)
    assert category_names(str(path)) == ["x", "y"]
    path.write_text(json.dumps({"categories": [{"id": "2", "name": 5}], "images": [], "annotations": []}, indent=1))
    assert category_names(str(path)) == ["5"]


def test_the_same_image_in_both_sets_is_known_by_its_content(tmp_path, monkeypatch):
    for name, data in {"a": b"one", "b": b"two", "c": b"three", "d": b"two", "e": b"six", "f": b"longer"}.items():
        (tmp_path / name).write_bytes(data)
    first, second = ([str(tmp_path / name) for name in names] for names in ("abc", "defg"))
    assert list(same_files(first, second)) == [(second[0], first[1])]
    assert list(same_files(first, first)) == [(path, path) for path in first]
    with pytest.raises(TimeoutError):
        list(same_files(first, second, seconds=0))
    monkeypatch.setattr("ppkd.bridge.between.open_file", lambda *_: pytest.fail("read"))
    assert not list(same_files(first[2:], second)), "sizes differ, so nothing is read"
    assert list(same_files(first, first)), "one file is one file"


def test_photographs_of_one_size_are_told_apart_by_their_ends(tmp_path, monkeypatch):
    """Of a large set every size is met many times."""
    paths = [tmp_path / str(n) for n in range(6)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(5000) + b"the end of %d" % (n % 5))
    paths[5].write_bytes(b"other" + paths[0].read_bytes()[5:])
    monkeypatch.setattr("ppkd.bridge.between._digest", lambda path: read.append(path) or path.read_bytes())
    read = []
    assert not list(same_files(paths[:3], paths[3:])) and sorted(read) == [paths[0], paths[5]]
    paths[4].write_bytes(paths[1].read_bytes())
    assert list(same_files(paths[:3], paths[3:])) == [(paths[4], paths[1])]


def test_how_a_run_tells_images_of_both_sets(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(datasets.logger(), "warning", lambda text, *values: said.append(text % values))
    monkeypatch.setattr(datasets.logger(), "info", lambda text, *values: said.append(text % values))
    for name, data in {"a": b"one", "b": b"two", "c": b"two", "d": b"six"}.items():
        (tmp_path / name).write_bytes(data)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    datasets.tell_same_images([a, b], [d])
    assert not said
    datasets.tell_same_images([a, b], [c, d])
    told = f"EvalDataset: 1 of 2 images are training images too, the first: {c} is {b}: same-image: "
    assert said.pop().startswith(told)
    monkeypatch.setattr(datasets, "_SECONDS", -1)
    datasets.tell_same_images([a, b], [c, d])
    told = "EvalDataset: not all images were compared with the training set's in -1 s; ppkd doctor --data does it"
    assert said == [told]


@pytest.mark.parametrize(
    "name, told",
    [
        ("images/a.jpg", "is in {root}: set -o train_images=. (TrainDataset.image_dir=. in a config without"),
        (r"deep\b.jpg", "it is there as deep/b.jpg: write `file_name` with / in place of"),
        (r"C:\Users\me\a.jpg", "it is there as a.jpg: write the base name alone into `file_name`"),
        ("https://example.com/data/a.jpg?width=3", "it is there as a.jpg: write the base name alone"),
        ("/data/local-files/?d=some/a.jpg", "it is there as a.jpg: write the base name alone"),
        ("/home/other/a.jpg", "it is there as a.jpg: write the base name alone"),
        ("b.jpg", "is in {root}/images/deep: set -o train_images=images/deep"),
        ("A.JPG", "there is a.jpg: write `file_name` so"),
        ("a.png", "there is a.jpg: write `file_name` so"),
        ("gro\u0308\u00dfe.jpg", "there is gr\u00f6\u00dfe.jpg: write `file_name` so"),
        ("a.jpg ", "there is a.jpg: write `file_name` so"),
        ("c.jpg", ""),
    ],
)
def test_the_message_says_what_would_find_the_images(name, told, tmp_path):
    root, folder = str(tmp_path), str(tmp_path / "images")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "a.jpg").touch()
    (tmp_path / "images" / "gr\u00f6\u00dfe.jpg").touch()
    (tmp_path / "images" / "deep" / "b.jpg").touch()
    path = name if name.startswith("/") else f"{folder}/{name}"
    cure = cure_of([path], root, folder, "train")
    assert told.format(root=root) in cure and bool(cure) == bool(told)
