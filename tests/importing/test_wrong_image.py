"""Boxes never come onto an image that they are not of: what is meant is found, or counted as missing and told."""

import json

import pytest

from ppkd.errors import UserError
from ppkd.importing.convert import read
from tests.helpers_tools import write
from tests.importing.test_sizes import picture

MISSING = "annotated images that are not there"
OTHER = "files that name another image than that of their own name, which is taken"


def pictures(folder, *names):
    for name in names:
        picture(folder / name)


def voc(path, filename=None, box=(1, 1, 9, 9), more=""):
    keys = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
    named = f"<filename>{filename}</filename>" if filename else ""
    write(path, f"<annotation>{named}{more}<object><name>o</name><bndbox>{keys}</bndbox></object></annotation>")


def labelme(path, filename):
    shape = {"label": "o", "shape_type": "rectangle", "points": [[1, 1], [9, 9]]}
    write(path, json.dumps({"imagePath": filename, "shapes": [shape]}))


def coco(path, *files):
    images = [{"id": number, "file_name": name} for number, name in enumerate(files)]
    entries = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5]} for n in range(len(files))]
    write(path, json.dumps({"images": images, "annotations": entries, "categories": [{"id": 1, "name": "o"}]}))


def cvat(path, *names):
    """Names, or pairs of a name and a subset."""
    box = '<box label="o" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    pairs = [(name, None) if isinstance(name, str) else name for name in names]
    said = [(f'name="{name}"' + (f' subset="{subset}"' if subset else "")) for name, subset in pairs]
    write(path, f"<annotations>{''.join(f'<image {text}>{box}</image>' for text in said)}</annotations>")


def task(number, data, *to_names):
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rectanglelabels": ["o"]}
    results = [{"type": "rectanglelabels", "value": value} | ({"to_name": t} if t else {}) for t in to_names or [None]]
    return {"id": number, "data": data, "annotations": [{"result": results}]}


def found(folder):
    """``{(image, file that annotates it)}`` by their paths, and what is not taken over."""
    source, _ = read(str(folder))
    within = len(str(folder)) + 1
    return {(each.path[within:], each.where[within:]) for each in source.pictures}, source.dropped


# Two tasks or splits, of which the second lacks an image that the first has one of the same name for.
LACKING = {
    "cvat's tasks": (("t1/images/0.jpg", "t1/images/1.jpg", "t2/images/2.jpg"), cvat,
                     {"t1/a.xml": ("1.jpg",), "t2/a.xml": ("0.jpg", "2.jpg")}),
    "cvat's tasks, both of which list it": (("t1/cam/0.jpg", "t2/cam/2.jpg"), cvat,
                                            {"t1/a.xml": ("cam/0.jpg",), "t2/a.xml": ("cam/0.jpg", "cam/2.jpg")}),
    "roboflow's folders": (("valid/0.jpg", "train/2.jpg"), coco,
                           {"valid/_a.coco.json": ("0.jpg",), "train/_a.coco.json": ("0.jpg", "2.jpg")}),
    "coco's own folders": (("val2017/0.jpg", "train2017/2.jpg"), coco,
                           {"annotations/instances_val2017.json": ("0.jpg",),
                            "annotations/instances_train2017.json": ("0.jpg", "2.jpg")}),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKING)
def test_a_missing_image_is_not_replaced_by_one_of_another_task_or_split(case, tmp_path):
    images, make, files = LACKING[case]
    pictures(tmp_path, *images)
    for path, names in files.items():
        make(tmp_path / path, *names)
    pairs, dropped = found(tmp_path)
    assert dropped[MISSING] == 1 and len(pairs) == 2
    assert all(image.split("/")[0][:5] == file.split("/")[-1].replace("instances_", "")[:5]
               or image.split("/")[0] == file.split("/")[0] for image, file in pairs)  # fmt: skip


@pytest.mark.parametrize("kind", ["voc", "labelme"])
def test_a_missing_image_is_not_replaced_by_one_that_has_a_file_of_its_own(kind, tmp_path):
    make, ending = (voc, "xml") if kind == "voc" else (labelme, "json")
    pictures(tmp_path, "one/1.jpg", "one/2.jpg", "two/3.jpg")
    for path, name in (("one/1", "1.jpg"), ("one/2", "2.jpg"), ("two/1", "1.jpg"), ("two/3", "3.jpg"), ("4", "2.jpg")):
        make(tmp_path / f"{path}.{ending}", name)
    pairs, dropped = found(tmp_path)
    assert pairs == {(f"{path}.jpg", f"{path}.{ending}") for path in ("one/1", "one/2", "two/3")}
    assert dropped[MISSING] == 2


def test_an_image_of_another_splits_folder_is_taken_where_no_file_but_one_names_it(tmp_path):
    pictures(tmp_path, "train/0.jpg", "train/1.jpg")
    coco(tmp_path / "annotations" / "train.json", "0.jpg")
    coco(tmp_path / "annotations" / "val.json", "1.jpg")
    pairs, dropped = found(tmp_path)
    assert pairs == {(f"train/{n}.jpg", f"annotations/{split}.json") for n, split in enumerate(("train", "val"))}
    assert dropped == {"images that lie in the folder of another split": 1}


@pytest.mark.parametrize("subsets", [("Train", "Validation"), ("first", "second")])
def test_a_subset_of_cvats_is_the_folder_of_its_images(subsets, tmp_path):
    one, two = subsets
    pictures(tmp_path, f"images/{one}/a.jpg", f"images/{two}/a.jpg", f"images/{two}/b.jpg")
    cvat(tmp_path / "x.xml", ("a.jpg", two), ("a.jpg", one), ("b.jpg", one), ("b.jpg", two))
    source, _ = read(str(tmp_path))
    assert [each.path.split("/")[-2:] for each in source.pictures] == [[two, "a.jpg"], [one, "a.jpg"], [two, "b.jpg"]]
    assert source.dropped == {MISSING: 1}


@pytest.mark.parametrize("named", ["c.jpg", "C:\\was\\c.jpg", "gone.jpg"])
@pytest.mark.parametrize("kind", ["voc", "labelme"])
def test_the_image_of_the_own_name_is_taken_for_one_that_was_called_otherwise(kind, named, tmp_path):
    make, ending = (voc, "xml") if kind == "voc" else (labelme, "json")
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    for name in "ac":
        make(tmp_path / f"{name}.{ending}", f"{name}.jpg")
    make(tmp_path / f"b.{ending}", named)
    pairs, dropped = found(tmp_path)
    assert pairs == {(f"{name}.jpg", f"{name}.{ending}") for name in "abc"} and dropped == {OTHER: 1}


@pytest.mark.parametrize("data, to_name, wanted", [
    ({"priority": "3", "image": "/data/upload/1/abcdef12-1.jpg"}, None, "1"),
    ({"comment": "2.jpg", "picture": "s3://b/1.jpg"}, None, "1"),
    ({"caption": "dog", "file": "http://h/1.jpg?sig=a/3.jpg"}, None, "1"),
    ({"shot": "1.jpg", "before": "2.jpg"}, "shot", "1"),
    ({"image": "2.jpg", "after": "1.jpg"}, "seen", "1"),
    ({"id": "1", "note": "2"}, None, None),
    ({"image": "gone.jpg", "neighbour": "2.jpg"}, "image", None),
])  # fmt: skip
def test_a_task_of_label_studio_is_of_the_image_that_its_results_name(data, to_name, wanted, tmp_path):
    pictures(tmp_path, "1.jpg", "2.jpg", "3.jpg", "dog.jpg")
    write(tmp_path / "view.xml", '<View><Image name="seen" value="$after"/></View>')
    write(tmp_path / "e.json", json.dumps([task(1, data, to_name), task(2, {"image": "3.jpg"})]))
    pairs, dropped = found(tmp_path)
    assert {image for image, where in pairs if "task 1" in where} == ({f"{wanted}.jpg"} if wanted else set())
    assert dropped[MISSING] == (wanted is None)


@pytest.mark.parametrize("task_", [
    task(1, {"left": "1.jpg", "right": "2.jpg"}), task(1, {"left": "1.jpg", "right": "2.jpg"}, "left", "right"),
    task(1, {"left": "1.jpg", "right": "gone.jpg"}, "left", "right"),
])  # fmt: skip
def test_a_task_of_several_images_is_refused(task_, tmp_path):
    pictures(tmp_path, "1.jpg", "2.jpg")
    write(tmp_path / "e.json", json.dumps([task_]))
    with pytest.raises(UserError, match="task 1: .*several images, left, right"):
        read(str(tmp_path))


@pytest.mark.parametrize("name", ["50%25", "a%20b", "what?", "100%", "a#b"])
@pytest.mark.parametrize("make", [coco, cvat])
def test_names_are_first_what_they_are_and_then_addresses(make, name, tmp_path):
    pictures(tmp_path, f"{name}.jpg", "c d.jpg", "a b.jpg")
    make(tmp_path / f"x.{'json' if make is coco else 'xml'}", f"{name}.jpg", "c%20d.jpg")
    pairs, dropped = found(tmp_path)
    assert {image for image, _ in pairs} == {f"{name}.jpg", "c d.jpg"} and MISSING not in dropped


@pytest.mark.parametrize("ending", ["", " 1", "  -1", ".jpg"])
def test_names_with_spaces_stand_in_vocs_lists(ending, tmp_path):
    pictures(tmp_path, *(f"JPEGImages/cat {n}.jpg" for n in range(3)), "JPEGImages/cat.jpg")
    for name in ("cat 0", "cat 1", "cat 2", "cat"):
        voc(tmp_path / "Annotations" / f"{name}.xml", f"{name}.jpg")
    write(tmp_path / "ImageSets/Main/train.txt", f"cat 0{ending}\ncat{ending}\nnone\n")
    write(tmp_path / "ImageSets/Main/val.txt", f"cat 1{ending}\ncat 2{ending}\ncat{ending}\n")
    source, _ = read(str(tmp_path))
    splits = {each.path.split("/")[-1]: each.split for each in source.pictures}
    assert splits == {"cat 0.jpg": "train", "cat.jpg": "train", "cat 1.jpg": "val", "cat 2.jpg": "val"}
    twice = "images in lists of several splits: the first of test, train, val is taken"
    assert source.dropped == {"names in ImageSets without an XML file": 1, twice: 1}
