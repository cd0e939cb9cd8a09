"""Importing: nothing half written or overwritten, one line for bad input, copies on one side of the split."""

import json
import os
import shutil

import pytest

from ppkd.errors import UserError
from ppkd.importing import convert as module
from ppkd.importing.convert import convert
from tests.helpers_tools import write
from tests.importing.test_formats import FORMATS, SCENE, picture, voc, yolo


@pytest.fixture(autouse=True)
def _no_drawing(request, monkeypatch):
    """The picture takes most of the time; the tests of formats and of odd names draw it."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(module, "draw", lambda *_: None)


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "cccc">]><annotation><filename>&b;</filename></annotation>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>'


def bad(form, path, text):
    def make(folder):
        FORMATS[form](folder)
        write(folder / path, text)

    return make


BAD = {
    "an entity": (bad("voc", "Annotations/a.xml", BOMB), "a.xml: has a DOCTYPE"),
    "a file of elsewhere": (bad("cvat", "annotations.xml", OUTSIDE), "annotations.xml: has a DOCTYPE"),
    "broken XML": (bad("voc", "Annotations/b.xml", "<annotation><object>"), "b.xml: broken XML"),
    "no number": (bad("voc", "Annotations/b.xml", "<annotation><filename>b</filename><object><name>van</name><bndbox>"
                  "<xmin>1</xmin><ymin>x</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"),
                  "b.xml: ymin has to be a number, found 'x'"),
    "no name": (bad("voc", "Annotations/b.xml", "<annotation><filename>b</filename><object><name> </name></object>"
                "</annotation>"), "b.xml: an object has no class name"),
    "pixels for shares": (bad("yolo", "labels/train/a.txt", "0 40 20 8 4"), "a.txt:1: shares of width and height"),
    "an unknown class": (bad("yolo", "labels/train/a.txt", "0 .5 .5 .1 .1\n2 .5 .5 .1 .1"), "a.txt:2: class 2, and"),
    "a word": (bad("yolo", "labels/train/a.txt", "car .5 .5 .1 .1"), "a.txt:1: each word of a line has to be a number"),
    "half a point": (bad("yolo", "labels/train/a.txt", "0 .5 .5 .1 .1 .3 .2 .1"), "a.txt:1: 8 numbers"),
    "no names": (bad("yolo", "data.yaml", "names: 3\n"), "data.yaml: names: has to be a list of names"),
    "broken JSON": (bad("labelme", "train/a.json", "{"), "a.json: broken JSON"),
    "points of three": (bad("labelme", "train/a.json", json.dumps(
        {"imagePath": "a.jpg", "shapes": [{"label": "car", "points": [[1, 2, 3]]}]})), "a.json: points have to be"),
    "an image that is not listed": (bad("coco", "train/_annotations.coco.json", json.dumps(
        {"images": [], "categories": [{"id": 1, "name": "car"}], "annotations": [
            {"image_id": 3, "category_id": 1, "bbox": [1, 1, 2, 2]}]})), "not in COCO's format: KeyError: 3"),
    "a label beside the list": (bad("cvat", "annotations.xml", "<annotations><meta><labels><label><name>van</name>"
        '</label></labels></meta><image name="a.jpg"><box label="car" xtl="1" ytl="1" xbr="3" ybr="3"/></image>'
        "</annotations>"), "label 'car' is none of"),
    "an annotation that is a number": (bad("label-studio", "export.json", json.dumps(
        [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [7]}])), "not as label-studio writes it: AttributeError"),
    "no annotations": (lambda folder: picture(folder / "a.jpg", 0), "in none of the formats"),
    "no images": (lambda folder: write(folder / "a.xml", "<annotation/>"), "no image in it or below"),
    "only missing ones": (lambda folder: (picture(folder / "z.jpg", 0), write(folder / "a.xml",
        "<annotation><filename>a.jpg</filename></annotation>")), "1 annotated images that are not there"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path):
    make, message = BAD[case]
    make(tmp_path / "in")
    with pytest.raises(UserError) as raised:
        convert(str(tmp_path / "in"), str(tmp_path / "out"))
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "inside"])
def test_nothing_is_overwritten(kind, tmp_path):
    voc(tmp_path / "in")
    out = tmp_path / "in" / "made" if kind == "inside" else tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match="is there already|lies in the data set"):
        convert(str(tmp_path / "in"), str(out))
    assert kind != "file" or out.read_text() == "mine"


@pytest.mark.parametrize("step", ["draw", "_write", "splits"])
def test_a_failure_at_any_step_leaves_nothing(step, tmp_path, monkeypatch):
    voc(tmp_path / "in")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, step, fail)
    with pytest.raises((UserError, OSError), match="No space"):
        convert(str(tmp_path / "in"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def many(folder):
    """Twelve images without splits: 0 to 3 each twice, and Roboflow's three pictures of one."""
    twice, made_of_one = [(f"{n}{s}", n) for n in range(4) for s in "ab"], [(f"x.rf.{n}", 9 + n) for n in range(3)]
    for name, seed in (*twice, *made_of_one, ("y", 20)):
        picture(folder / f"{name}.png", seed)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        write(folder / f"{name}.xml", f"<annotation><filename>{name}.png</filename><object><name>o</name>{box}</object>"
                                      "</annotation>")  # fmt: skip


def of_split(output, split):
    content = json.loads((output / f"annotations/instances_{split}.json").read_text())
    return {image["file_name"] for image in content["images"]}


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_an_image_are_on_one_side_of_the_split(seed, tmp_path):
    many(tmp_path / "in")
    for name in ("one", "two"):
        text = convert(str(tmp_path / "in"), str(tmp_path / name), val="30%", seed=seed)
    train, val = (of_split(tmp_path / "one", split) for split in ("train", "val"))
    assert train | val == {path.name for path in (tmp_path / "in").glob("*.png")} and not train & val and val
    assert all((f"{n}a.png" in val) == (f"{n}b.png" in val) for n in range(4))
    assert len({f"x.rf.{n}.png" in val for n in range(3)}) == 1
    assert of_split(tmp_path / "two", "val") == val and f"drawn with seed {seed}" in text


def test_images_that_no_annotation_names_are_counted(tmp_path):
    voc(tmp_path / "in")
    for name in ("new1.png", "new2.png"):
        picture(tmp_path / "in" / name, 7)
    assert "2 x images that no annotation names" in convert(str(tmp_path / "in"), str(tmp_path / "out"))


def test_a_share_replaces_the_splits_of_the_data_set(tmp_path):
    yolo(tmp_path / "in")
    convert(str(tmp_path / "in"), str(tmp_path / "out"), val="50%", seed=1)
    assert len(of_split(tmp_path / "out", "val")) == 2
    for value in ("0", "100%", "x"):
        with pytest.raises(UserError, match="--val .*: has to be a share"):
            convert(str(tmp_path / "in"), str(tmp_path / "o2"), val=value)


@pytest.mark.parametrize("how", ["copy", "link", "leave"])
def test_images_are_copied_linked_or_left(how, tmp_path):
    voc(tmp_path / "in")
    text = convert(str(tmp_path / "in"), str(tmp_path / "out"), images=how)
    made = tmp_path / "out" / "images"
    if how == "leave":
        assert not made.exists() and f"train_images={tmp_path / 'in'}" in text
        assert all((tmp_path / "in" / name).is_file() for name in of_split(tmp_path / "out", "train"))
        return
    source = tmp_path / "in" / "JPEGImages" / "a.jpg"
    assert (made / "a.jpg").read_bytes() == source.read_bytes()
    assert (made / "a.jpg").samefile(source) == (how == "link")


def test_images_of_one_name_in_several_folders_stay_apart(tmp_path):
    for folder in ("p", "q"):
        voc(tmp_path / "in" / folder)
    for path in (tmp_path / "in" / "q" / "JPEGImages").glob("*.jpg"):
        picture(path, 100 + ord(path.stem))
    shutil.rmtree(tmp_path / "in" / "q" / "ImageSets")
    convert(str(tmp_path / "in"), str(tmp_path / "out"))
    names = [path.name for path in (tmp_path / "out" / "images").iterdir()]
    assert len(names) == 2 * len(SCENE)


def test_the_order_of_classes_can_be_given(tmp_path):
    voc(tmp_path / "in")
    convert(str(tmp_path / "in"), str(tmp_path / "out"), names="van,bus,car")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["van", "bus", "car"]
    with pytest.raises(UserError, match="--names: lacks van; nearest: van2"):
        convert(str(tmp_path / "in"), str(tmp_path / "o2"), names="car,van2")
    os.mkfifo(tmp_path / "names.txt")
    for path, told in ((tmp_path / "names.txt", "is a named pipe"), (tmp_path / "in", "is a folder")):
        with pytest.raises(UserError, match=f"--names: {path} cannot be read: {told}.*, not a file; give a list"):
            convert(str(tmp_path / "in"), str(tmp_path / "o2"), names=str(path))


@pytest.mark.parametrize("names", [["$x$", "a/b"], ["中文", "\\frac"]])
def test_odd_names_of_classes_and_files_are_drawn(names, tmp_path):
    picture(tmp_path / "in" / "we ird$^_.png", 0)
    picture(tmp_path / "in" / "other.png", 1)
    shapes = [{"label": name, "points": [[1, 1], [30, 1], [30, 30]]} for name in names]
    for stem in ("we ird$^_", "other"):
        write(tmp_path / "in" / f"{stem}.json", json.dumps({"imagePath": f"{stem}.png", "shapes": shapes}))
    convert(str(tmp_path / "in"), str(tmp_path / "out"))
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [c["name"] for c in content["categories"]] == sorted(names)
    first = content["annotations"][0]
    assert first["area"] == pytest.approx(420.5) and len(first["segmentation"][0]) == 6


@pytest.mark.parametrize("make", [lambda path: (path / "train").mkdir(parents=True), lambda path: path.write_text("x")])
def test_what_another_command_makes_meanwhile_is_left_as_it_is(make, tmp_path, monkeypatch):
    voc(tmp_path / "in")
    monkeypatch.setattr(module, "draw", lambda *_: make(tmp_path / "out"))
    with pytest.raises(UserError, match="out: another command has made it meanwhile"):
        convert(str(tmp_path / "in"), str(tmp_path / "out"), val="50%")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
