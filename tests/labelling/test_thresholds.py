"""Thresholds by F1, against every possible cut tried one by one; doubt; and the names of photographs."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from ppkd.bridge.between import marks_of
from ppkd.bridge.unlabelled import find_photographs, refuse_validation_images
from ppkd.errors import UserError
from ppkd.labelling import picture, work
from ppkd.study.thresholds import F1, GIVEN, NEVER, POOLED, best_cut, find, parse


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_is_the_best_of_all(seed):
    draw = np.random.default_rng(seed)
    scores, correct = draw.integers(1, 9, 40) / 10, draw.random(40) < 0.5
    tried = {s: 2 * correct[scores >= s].sum() / ((scores >= s).sum() + 25) for s in set(scores)}
    score, f1, precision, recall = best_cut(scores, correct, 25)
    assert f1 == pytest.approx(max(tried.values())) and tried[score] == pytest.approx(f1)
    assert precision == pytest.approx(correct[scores >= score].mean())
    assert recall == pytest.approx(correct[scores >= score].sum() / 25)


def test_each_class_has_its_own_and_says_where_it_is_from():
    curves = {
        "seen": ([0.9, 0.6, 0.3], [True, True, False], 2), "wrong": ([0.8], [False], 3), "absent": ([], [], 0),
        "told": ([0.7, 0.2], [True, False], 1),
    }  # fmt: skip
    found = find(curves, {"told": 0.1})
    assert (found["seen"].score, found["seen"].source, found["seen"].f1) == (0.6, F1, 1.0)
    assert (found["wrong"].score, found["wrong"].source) == (None, NEVER)
    assert found["absent"].source == POOLED and found["absent"].score is not None
    assert (found["told"].score, found["told"].source, found["told"].precision) == (0.1, GIVEN, 0.5)


def test_thresholds_are_given_for_all_or_for_some():
    assert parse("0.5", ["a", "b"]) == {"a": 0.5, "b": 0.5} and parse("b=0.25", ["a", "b"]) == {"b": 0.25}
    assert parse(None, ["a"]) == {}
    for wrong in ("", " ", "-1", "nan", "x", "a=2"):
        with pytest.raises(UserError, match="--threshold"):
            parse(wrong, ["a"])


def test_the_most_doubtful_images_come_first():
    images = [{"name": f"{n:02}", "results": [{"score": n / 100, "category_id": 1}]} for n in range(100)]
    shown = picture.pick(images, {1: 0.5})
    doubts = [doubt for doubt, _ in shown]
    assert shown[0][1]["name"] == "50" and doubts == sorted(doubts, reverse=True) and len(shown) == 16
    assert picture.doubt([{"score": 0.5, "category_id": 1}], {1: None}) == 0


@pytest.mark.parametrize("name", [b"Stra\xdfe.png", b"\x1b[31m\n.png", b"$x^{$.png"])
def test_photographs_of_any_name_are_drawn(name, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.path.join(os.fsencode(tmp_path), name))
    found = [{"category_id": 1, "bbox": [1, 2, 10, 10], "score": 0.6}]
    image = {"name": os.fsdecode(name), "width": 40, "height": 30, "results": found}
    picture.draw([image], str(tmp_path), {1: "a\ud83d"}, {1: 0.5}, str(tmp_path / "shown.png"))
    assert Image.open(tmp_path / "shown.png").size[0] > 1000


def test_photographs_are_named_by_a_folder_a_list_or_a_coco_file(tmp_path):
    (tmp_path / "a" / ".hidden").mkdir(parents=True)
    for name in ("b.jpg", "a/c.PNG", "a/.hidden/d.jpg", ".e.jpg", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    assert find_photographs(tmp_path, "k").names == ("b.jpg", "a/c.PNG")
    (tmp_path / "list.txt").write_text("a/c.PNG\n\nb.jpg\nb.jpg\n")
    assert find_photographs(tmp_path / "list.txt", "k").names == ("a/c.PNG", "b.jpg")
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"file_name": "c.PNG", "id": 1}]}))
    found = find_photographs(tmp_path / "coco.json", "k", image_dir=tmp_path / "a")
    assert found.paths == [str(tmp_path / "a" / "c.PNG")]


def test_an_image_that_a_list_spells_in_several_ways_is_one(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text(f"./a.png\na.png\n{tmp_path / 'a.png'}\nb.png\nx/../b.png\n")
    assert find_photographs(tmp_path / "list.txt", "k").names == ("./a.png", "b.png")


def test_a_folder_is_looked_through_with_what_it_links_to(tmp_path):
    """Each folder once, though links lead back to it."""
    (tmp_path / "disk" / "more").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    for name in ("disk/a.png", "disk/more/b.png", "photos/c.png"):
        (tmp_path / name).write_bytes(b"x")
    for link, target in (("photos/linked", "disk"), ("photos/twice", "disk"), ("disk/back", "photos")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert find_photographs(tmp_path / "photos", "k").names == ("c.png", "linked/a.png", "linked/more/b.png")


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    look = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked: cannot be looked into: Permission denied"):
        find_photographs(tmp_path, "--images")


def test_names_that_no_file_can_have_are_images_that_are_missing(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "list.txt").write_bytes(b"a.png\nb\0.png\n")
    found = find_photographs(tmp_path / "list.txt", "k")
    refuse_validation_images(found.paths, [str(tmp_path / "c\0.png")], "k")
    assert marks_of(found.paths) and work._key("", found.folder, found.names)


def test_the_images_of_a_coco_file_lie_where_coco_has_them(tmp_path):
    names = [{"file_name": "gone.jpg", "id": 1}, {"file_name": "b.jpg", "id": 2}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "u.json").write_text(json.dumps({"images": names}))
    with pytest.raises(UserError, match="none of the 2 images .*the first is gone.jpg; looked in"):
        find_photographs(tmp_path / "annotations" / "u.json", "k")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.jpg").write_bytes(b"x")
    found = find_photographs(tmp_path / "annotations" / "u.json", "k")
    assert found.paths == [str(tmp_path / "images" / "gone.jpg"), str(tmp_path / "images" / "b.jpg")]
    with pytest.raises(UserError, match="none of the 2 images"):
        find_photographs(tmp_path / "annotations" / "u.json", "k", image_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("l.txt", "", "names no image"),
        ("l.txt", "/etc/passwd", "lead out of"),
        ("l.txt", "a.jpg", "none of the 1 images"),
        ("l.json", "{}", "no images in it"),
        ("l.json", '{"images": [{"id": 1}]}', "file_name"),
        ("l.yml", "a", "give an image folder"),
    ],
)
def test_a_list_that_is_none_is_told(name, content, told, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told):
        find_photographs(tmp_path / name, "unlabelled")
