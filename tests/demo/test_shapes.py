"""The synthetic data set: the same everywhere, valid COCO, complete or absent."""

import zlib  # noqa: F401, I001  (must come before what loads its own copy)

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppkd.data import render as drawing
from ppkd.data import shapes

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"train": 5, "val": 3, "size": 96, "seed": 7}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Path(shapes.generate(tmp_path_factory.mktemp("shapes") / "set", **SMALL))


@pytest.fixture(scope="module")
def many():
    """Objects of 300 pictures, not written."""
    return [shapes.render(0, "train", index)[1] for index in range(300)]


def annotations(folder, split="train"):
    return json.loads((Path(folder) / "annotations" / f"instances_{split}.json").read_text())


def pixels(folder):
    files = sorted(Path(folder).glob("*/*.jpg"))
    return {f"{f.parent.name}/{f.name}": np.asarray(Image.open(f)) for f in files}


def test_two_runs_are_identical(made, tmp_path):
    again = Path(shapes.generate(tmp_path / "again", **SMALL))
    for split in ("train", "val"):
        name = f"annotations/instances_{split}.json"
        assert (made / name).read_bytes() == (again / name).read_bytes()
    first, second = pixels(made), pixels(again)
    assert list(first) == list(second) and len(first) == 8
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_global_random_state_is_neither_used_nor_touched():
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    first, _ = shapes.render(3, "val", 2, 64)
    assert np.array_equal(np.random.get_state()[1], state)
    np.random.seed(2)
    assert np.array_equal(shapes.render(3, "val", 2, 64)[0], first)


def test_a_picture_does_not_depend_on_the_counts(made, tmp_path):
    fewer = shapes.generate(tmp_path / "fewer", **{**SMALL, "train": 3, "val": 1})
    every = pixels(made)
    for name, image in pixels(fewer).items():
        assert np.array_equal(image, every[name])
    ours = annotations(fewer)["annotations"]
    assert ours and ours == annotations(made)["annotations"][: len(ours)]


@pytest.mark.parametrize("other", [(8, "train", 0), (7, "val", 0), (7, "train", 1)])
def test_seed_split_and_index_each_make_another_picture(other):
    assert not np.array_equal(shapes.render(7, "train", 0, 64)[0], shapes.render(*other, 64)[0])


def test_the_picture_of_a_seed_stays_what_it_was():
    """Raise shapes.VERSION with every change of what is drawn, then write the new values here."""
    image, objects = shapes.render(0, "train", 0)
    assert shapes.VERSION == 2
    assert objects[:2] == [(1, 126, 68, 50, 46), (1, 52, 163, 63, 61)]
    assert objects[2:] == [(4, 136, 203, 13, 12), (3, 70, 55, 26, 29)]
    # the mean, as a library may round a pixel otherwise
    assert image.mean() == pytest.approx(90.308, abs=0.05)


def test_pycocotools_reads_it_and_perfect_detections_score_one(made):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    for split in ("train", "val"):
        truth = COCO(str(made / "annotations" / f"instances_{split}.json"))
        assert [c["name"] for c in truth.loadCats(truth.getCatIds())] == list(shapes.CLASSES)
        assert truth.getCatIds() == [1, 2, 3, 4, 5, 6]
        assert len(truth.getImgIds()) == SMALL[split]
        found = truth.loadRes([{**a, "score": 0.9} for a in truth.dataset["annotations"]])
        for kind in ("bbox", "segm"):
            score = COCOeval(truth, found, kind)
            score.evaluate()
            score.accumulate()
            score.summarize()
            assert score.stats[0] == pytest.approx(1.0)


def test_annotations_are_complete_and_images_are_there(made):
    for split in ("train", "val"):
        coco = annotations(made, split)
        ids = {image["id"] for image in coco["images"]}
        assert len(ids) == len(coco["images"]) == len(list((made / split).iterdir()))
        for image in coco["images"]:
            with Image.open(made / split / image["file_name"]) as file:
                assert file.size == (image["width"], image["height"]) == (96, 96)
        numbers = [a["id"] for a in coco["annotations"]]
        assert numbers and numbers == list(range(1, len(numbers) + 1))
        for entry in coco["annotations"]:
            x, y, w, h = entry["bbox"]
            assert all(isinstance(v, float) for v in entry["bbox"])
            assert entry["area"] == w * h and entry["iscrowd"] == 0
            assert entry["image_id"] in ids and 1 <= entry["category_id"] <= 6


def test_boxes_are_inside_the_picture(many):
    tiny = [shapes.render(1, "val", index, 64)[1] for index in range(60)]
    for size, pictures in ((224, many), (64, tiny)):
        for _, x, y, w, h in (entry for objects in pictures for entry in objects):
            assert x >= 0 and y >= 0 and x + w <= size and y + h <= size
            assert min(w, h) >= drawing.MIN_SIDE


def test_all_classes_and_sizes_and_empty_pictures_occur(many):
    groups = Counter()
    for kind, _, _, w, h in (entry for objects in many for entry in objects):
        groups[kind, "small" if w * h < 32**2 else "medium" if w * h < 96**2 else "large"] += 1
    total = sum(groups.values())
    for kind in range(6):
        for size, share in (("small", 0.03), ("medium", 0.04), ("large", 0.005)):
            assert groups[kind, size] > share * total, (shapes.CLASSES[kind], size)
    assert 0.03 < sum(not objects for objects in many) / len(many) < 0.11
    sides = [max(w, h) for objects in many for _, _, _, w, h in objects]
    assert min(sides) <= 11 and max(sides) >= 90


def test_colour_does_not_tell_the_class():
    colours = {kind: [] for kind in range(6)}
    for index in range(150):
        image, objects = shapes.render(2, "train", index)
        for kind, x, y, w, h in objects:
            colours[kind].append(image[y : y + h, x : x + w].mean((0, 1)))
    means = np.array([np.mean(values, 0) for values in colours.values()])
    error = np.mean([np.std(v, 0) / len(v) ** 0.5 for v in colours.values()])
    assert np.abs(means - means.mean(0)).max() < 4 * error


@pytest.mark.parametrize("kind", drawing.CLASSES)
def test_an_outline_fills_the_box_it_is_asked_for(kind):
    rng = np.random.default_rng(0)
    for extent in (12.0, 40.0, 100.0):
        contours = drawing._place(rng, drawing._outline(kind, rng), extent, 1.12)
        mask, _ = drawing._fill(contours, np.array([112.0, 112.0]), 224)
        rows, cols = np.nonzero(mask >= 0.5)
        box = (np.ptp(rows) + 1) * (np.ptp(cols) + 1)
        # thin tips cover less than half of their pixel
        assert box**0.5 == pytest.approx(extent, abs=2.5)


def test_fill_is_exact_on_the_pixel_grid():
    square = [np.array([[-5.0, -5.0], [5.0, -5.0], [5.0, 5.0], [-5.0, 5.0]])]
    mask, corner = drawing._fill(square, np.array([20.0, 30.0]), 64)
    assert corner == (15, 25) and mask.shape == (10, 10)
    assert mask.min() > 0.99
    mask, corner = drawing._fill(square, np.array([2.0, 63.0]), 64)  # cut by the border
    assert corner == (0, 58) and mask.shape == (6, 7)


def layer(kind, x, y, w, h):
    return kind, (np.ones((h, w), np.float32), (x, y)), w * h


def test_boxes_are_those_of_the_visible_part():
    below, above = layer(1, 10, 10, 40, 20), layer(2, 30, 5, 40, 40)
    seen = [(kind, box) for kind, _, box, _ in drawing._visible([below, above], 96)]
    assert seen == [(1, (10, 10, 20, 20)), (2, (30, 5, 40, 40))]


def test_what_is_hidden_is_taken_out_and_hides_nothing_itself():
    first, hidden, above = layer(0, 0, 0, 20, 20), layer(1, 12, 0, 40, 20), layer(2, 22, 0, 40, 30)
    # 10 of the 40 columns of the second are visible, and it lies on 8 columns of the first
    seen = [(kind, box) for kind, _, box, _ in drawing._visible([first, hidden, above], 96)]
    assert seen == [(0, (0, 0, 20, 20)), (2, (22, 0, 40, 30))]
    just = layer(2, 25, 0, 40, 30)  # leaves 13 of 40 columns, 32 %
    assert [kind for kind, *_ in drawing._visible([first, hidden, just], 96)] == [0, 1, 2]
    slivers = [layer(3, 70, 0, 4, 20), layer(4, 70, 40, 5, 20)]
    assert [kind for kind, *_ in drawing._visible(slivers, 96)] == [4]


def test_masks_fill_what_is_visible_of_their_boxes(made):
    """Outlines run through pixel centres, and slivers beside a hidden object's larger part have none."""
    from pycocotools.coco import COCO

    truth = COCO(str(made / "annotations" / "instances_train.json"))
    full = []
    for entry in truth.dataset["annotations"]:
        assert all(len(polygon) >= 6 for polygon in entry["segmentation"])
        rows, cols = np.nonzero(truth.annToMask(entry))
        x, y, w, h = entry["bbox"]
        assert x <= cols.min() and y <= rows.min() and cols.max() < x + w and rows.max() < y + h
        full.append(np.ptp(cols) + 1 >= w - 2 and np.ptp(rows) + 1 >= h - 2)
    assert np.mean(full) > 0.75


def test_a_mask_of_slivers_is_its_box():
    line = np.zeros((20, 20), bool)
    line[3, 4:10] = True
    assert drawing._polygons(line, (4, 3, 6, 1)) == [[4.0, 3.0, 10.0, 3.0, 10.0, 4.0, 4.0, 4.0]]


def test_second_call_does_nothing(made):
    calls = []
    assert shapes.generate(made, **SMALL, progress=lambda *c: calls.append(c)) == str(made)
    assert not calls
    assert shapes.is_complete(made, **SMALL)


def test_progress_counts_to_the_end(tmp_path):
    calls = []
    shapes.generate(tmp_path / "s", **SMALL, progress=lambda *c: calls.append(c))
    assert calls == [(k, 8) for k in range(1, 9)]


@pytest.mark.parametrize("key, value", [("train", 6), ("val", 2), ("size", 80), ("seed", 8)])
def test_unequal_parameters_make_it_anew(tmp_path, key, value):
    out = tmp_path / "s"
    shapes.generate(out, **SMALL)
    other = {**SMALL, key: value}
    assert not shapes.is_complete(out, **other)
    shapes.generate(out, **other)
    assert shapes.is_complete(out, **other) and not shapes.is_complete(out, **SMALL)
    assert len(list((out / "train").iterdir())) == other["train"]
    assert os.listdir(tmp_path) == ["s"]


def test_older_version_is_made_anew(tmp_path, monkeypatch):
    out = tmp_path / "s"
    shapes.generate(out, **SMALL)
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    calls = []
    shapes.generate(out, **SMALL, progress=lambda *c: calls.append(c))
    assert len(calls) == 8


@pytest.mark.parametrize("lost", ["train/000002.jpg", "annotations/instances_val.json"])
def test_a_deleted_file_is_noticed(tmp_path, lost):
    out = tmp_path / "s"
    shapes.generate(out, **SMALL)
    (out / lost).unlink()
    shapes.generate(out, **SMALL)
    assert (out / lost).is_file()


class Stop(BaseException): ...


@pytest.mark.parametrize("at", [1, 5, 8])
def test_interruption_leaves_nothing(tmp_path, at):
    def stop(done, total):
        if done == at:
            raise Stop

    with pytest.raises(Stop):
        shapes.generate(tmp_path / "s", **SMALL, progress=stop)
    assert not os.listdir(tmp_path)


def test_interruption_leaves_the_earlier_set(tmp_path):
    out = tmp_path / "s"
    shapes.generate(out, **SMALL)

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        shapes.generate(out, **{**SMALL, "seed": 1}, progress=stop)
    assert shapes.is_complete(out, **SMALL) and os.listdir(tmp_path) == ["s"]


def test_a_killed_run_is_not_taken_for_complete(tmp_path):
    out = tmp_path / "s"
    code = (
        "import os, sys; from ppkd.data import shapes\n"
        "shapes.generate(sys.argv[1], train=5, val=3, size=96, seed=7,"
        " progress=lambda done, total: done == total and os._exit(9))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT)
    assert run.returncode == 9 and not out.exists()
    left = os.listdir(tmp_path)  # of the killed run; swept a day later
    shapes.generate(out, **SMALL)
    assert sorted(os.listdir(tmp_path)) == sorted([*left, "s"])
    (out / "val" / "000001.jpg").unlink()
    os.utime(tmp_path / left[0], (time.time() - 90000,) * 2)
    shapes.generate(out, **SMALL)
    assert os.listdir(tmp_path) == ["s"]


def test_two_runs_at_once(tmp_path):
    """The second finishes while the first is at its last picture."""
    out = tmp_path / "s"

    def other(done, total):
        if done == total:
            shapes.generate(out, **SMALL)

    shapes.generate(out, **SMALL, progress=other)
    assert shapes.is_complete(out, **SMALL) and os.listdir(tmp_path) == ["s"]


@pytest.mark.parametrize("where", ["", "train"])
def test_other_peoples_files_are_refused_and_kept(tmp_path, where):
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / "mine.jpg").write_text("mine")
    calls = []
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        shapes.generate(tmp_path, **SMALL, progress=lambda *c: calls.append(c))
    assert not calls  # refused before the work, not after it
    assert (tmp_path / where / "mine.jpg").read_text() == "mine"


def test_a_set_with_other_files_in_it_is_not_replaced(tmp_path):
    out = tmp_path / "s"
    shapes.generate(out, **SMALL)
    (out / "notes.txt").write_text("mine")
    shapes.generate(out, **SMALL)  # nothing to do
    with pytest.raises(FileExistsError, match="is no shapes data set"):
        shapes.generate(out, **{**SMALL, "seed": 1})
    assert (out / "notes.txt").exists() and shapes.is_complete(out, **SMALL)


def test_an_empty_folder_is_used_and_a_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    shapes.generate(tmp_path / "link", **SMALL)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "meta.json").is_file()


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the shapes data set.*file/s"):
        shapes.generate(tmp_path / "file" / "s", **SMALL)


@pytest.mark.parametrize(
    "key, value",
    [("train", 0), ("val", 0), ("size", 63), ("seed", -1), ("train", 2.0), ("val", True)],
)
def test_bad_parameters_are_refused(tmp_path, key, value):
    with pytest.raises(ValueError, match=key):
        shapes.generate(tmp_path / "s", **{**SMALL, key: value})
    assert os.listdir(tmp_path) == []


def test_command_line(tmp_path):
    words = ["--train", "5", "--val", "3", "--size", "96", "--seed", "7"]
    command = [sys.executable, "-m", "ppkd.data.shapes", "--out", str(tmp_path / "s"), *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(tmp_path / "s") and "RuntimeWarning" not in run.stderr
    assert shapes.is_complete(tmp_path / "s", **SMALL)


def test_command_line_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert shapes.main(["--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err
