"""Exports that are laid out otherwise than usual: taken where it is clear what they mean, else told or refused."""

import json
import os
import unicodedata

import pytest

from ppkd.errors import UserError
from tests.helpers_tools import write
from tests.importing.test_sizes import _no_drawing, coco, picture  # noqa: F401  # fixture
from tests.importing.test_wrong_entries import made

SHAPES = [{"label": "o", "points": [[2, 2], [12, 10]], "shape_type": "rectangle"}]
ROW = "0 0.5 0.5 0.2 0.4\n"
VOC = "<object><name>o</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>12</xmax><ymax>10</ymax></bndbox></object>"
XML = {"voc": f"<annotation>{VOC}</annotation>"}


def labelme(folder):
    for name in "xyz":
        picture(folder / f"{name}.jpg")
        write(folder / f"{name}.json", json.dumps({"imagePath": f"{name}.jpg", "shapes": SHAPES}))


def voc(folder):
    for name in "xyz":
        picture(folder / f"{name}.jpg")
        write(folder / f"{name}.xml", XML["voc"])


def cvat(folder):
    for name in "xyz":
        picture(folder / f"{name}.jpg")
    box = '<box label="o" xtl="2" ytl="2" xbr="12" ybr="10"/>'
    images = "".join(f'<image name="{name}.jpg" width="40" height="20">{box}</image>' for name in "xyz")
    write(folder / "x.xml", f"<annotations>{images}</annotations>")


def yolo(folder, names="xyz", yaml="names: [o, p]", images="images", labels="labels"):
    for name in names:
        picture(folder / images / f"{name}.jpg")
        write(folder / labels / f"{name}.txt", ROW)
    write(folder / "data.yaml", yaml)


@pytest.mark.parametrize("make, other", [(labelme, "json"), (voc, "xml"), (cvat, "xml")])
def test_files_of_other_programs_may_come_first(make, other, tmp_path):
    make(tmp_path / "in")
    for name in "abcd":
        write(tmp_path / "in" / f"{name}.{other}", "{}" if other == "json" else "<project/>")
    text, boxes = made(tmp_path)
    assert f": {make.__name__}," in text and [entry["bbox"] for entry in boxes] == [[2, 2, 10, 8]] * 3


@pytest.mark.parametrize("images, labels", [("Images", "Labels"), ("IMAGES", "LABELS"), ("Images", "labels")])
def test_yolos_folders_in_capitals(images, labels, tmp_path):
    yolo(tmp_path / "in", images=images, labels=labels)
    assert len(made(tmp_path)[1]) == 3


def test_two_images_of_one_label_file_are_told(tmp_path):
    yolo(tmp_path / "in")
    picture(tmp_path / "in" / "images" / "x.png")
    assert "1 x images whose label file is another's as well" in made(tmp_path)[0]


def test_labels_without_an_image_are_counted_and_lists_are_none(tmp_path):
    yolo(tmp_path / "in")
    texts = {"gone": ROW, "lost": "1 -1e-3 .5 .2 .2 .4 .4\n", "classes": "o\np\n", "train": "x.jpg\n"}
    for name, text in texts.items():
        write(tmp_path / "in" / "labels" / f"{name}.txt", text)
    assert "2 x label files without an image" in made(tmp_path)[0]


@pytest.mark.parametrize("count, names", [(3, "[o, p]"), (1, "{0: o, 1: p}")])
def test_a_number_of_classes_that_its_names_do_not_have_is_refused(count, names, tmp_path):
    yolo(tmp_path / "in", yaml=f"nc: {count}\nnames: {names}")
    with pytest.raises(UserError, match=f"data.yaml: nc says {count} classes, and `names` are 2"):
        made(tmp_path)


@pytest.mark.parametrize("val", ["images/validation", "nowhere/val.txt", "../elsewhere/images"])
def test_a_split_that_finds_no_image_is_told(val, tmp_path):
    yolo(tmp_path / "in", yaml=f"names: [o, p]\ntrain: images\nval: {val}")
    if val.endswith(".txt"):
        write(tmp_path / "in" / val, "gone.jpg\n")
    assert f"1 x path of data.yaml without an image: val: {val}" in made(tmp_path)[0]


def task(number, *annotations):
    return {"id": number, "data": {"image": f"/data/upload/1/{number}.jpg"}, "annotations": list(annotations)}


def result(x, **more):
    value = {"x": x, "y": 10, "width": 20, "height": 40, "rectanglelabels": ["o"]}
    return {"type": "rectanglelabels", "to_name": "image", "value": value} | more


def studio(folder, *tasks):
    for number in range(len(tasks)):
        picture(folder / f"{number}.jpg")
    write(folder / "x.json", json.dumps(tasks))


def test_what_was_marked_as_ground_truth_is_taken_before_the_first(tmp_path):
    first, second = {"result": [result(10)]}, {"result": [result(50)]}
    studio(tmp_path / "in", task(0, first, second | {"ground_truth": True}), task(1, first, second))
    text, boxes = made(tmp_path)
    assert [entry["bbox"][0] for entry in boxes] == [20, 4] and "2 x further annotations of a task" in text


@pytest.mark.parametrize("kind", ["rectangle", "polygon"])
def test_shapes_and_their_labels_are_two_results_of_one_id(kind, tmp_path):
    corners = {"x": 10, "y": 10, "width": 20, "height": 40, "points": [[10, 10], [30, 10], [30, 50]]}
    pair = [{"id": "q", "type": kind, "to_name": "image", "value": corners},
            {"id": "q", "type": "labels", "to_name": "image", "value": corners | {"labels": ["o"]}}]  # fmt: skip
    studio(tmp_path / "in", task(0, {"result": pair}), task(1, {"result": [pair[1] | {"id": "r"}, *pair]}))
    text, boxes = made(tmp_path)
    assert [entry["bbox"] for entry in boxes] == [[4, 2, 8, 8]] * 2
    assert "1 x results of the kind labels" in text and f"of the kind {kind}" not in text


def test_values_without_their_tasks_are_refused_with_the_export_that_is_read(tmp_path):
    picture(tmp_path / "in" / "0.jpg")
    entry = {"image": "/data/upload/1/0.jpg", "label": [result(1)["value"]], "annotator": 1, "annotation_id": 1}
    write(tmp_path / "in" / "x.json", json.dumps([entry]))
    with pytest.raises(UserError, match="x.json: is Label Studio's export `JSON-MIN`, and `JSON` is read"):
        made(tmp_path)


@pytest.mark.parametrize(
    "said, there",
    [("café.jpg", unicodedata.normalize("NFD", "café.jpg")), ("u\u0308.jpg", "ü.jpg"), ("IMG.JPG", "img.jpg")],
)
def test_names_in_another_spelling_are_found(said, there, tmp_path):
    folder = tmp_path / "in"
    for name in ("plain", said.rpartition(".")[0]):
        coco(folder, name, (40, 20), (2, 2, 12, 10))
    contents = [json.loads((folder / f"{name}.json").read_text()) for name in ("plain", said.rpartition(".")[0])]
    for path in folder.glob("*.json"):
        path.unlink()
    contents[1]["images"][0] |= {"id": 2, "file_name": said}
    contents[1]["annotations"][0] |= {"id": 2, "image_id": 2}
    whole = {key: contents[0][key] + contents[1][key] for key in ("images", "annotations")}
    write(folder / "x.json", json.dumps(whole | {"categories": contents[0]["categories"]}))
    for name in ("plain.jpg", there):
        picture(folder / name)
    text, boxes = made(tmp_path)
    assert len(boxes) == 2 and "that are not there" not in text


def outlined(folder, *segmentations):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 20} for n in range(len(segmentations))]
    entries = [{"id": n, "image_id": n, "category_id": 1, "segmentation": s} for n, s in enumerate(segmentations)]
    for number in range(len(segmentations)):
        picture(folder / f"{number}.jpg")
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "o"}]}
    write(folder / "x.json", json.dumps(content))


def test_outlines_alone_get_the_box_around_them(tmp_path):
    two = [[2, 3, 12, 3, 2, 11], [20, 1, 30, 1, 30, 9]]
    outlined(tmp_path / "in", two, two[0], {"size": [20, 40], "counts": [800]}, [])
    text, boxes = made(tmp_path)
    assert [entry["bbox"] for entry in boxes] == [[2, 1, 28, 10], [2, 3, 10, 8]]
    assert "2 x annotations without a box: that around" in text and "2 x annotations without a box\n" in text


@pytest.mark.parametrize("name", ["\ud800x", "a\udfff"])
def test_half_a_character_in_a_name_is_refused(name, tmp_path):
    coco(tmp_path / "in", "a", (40, 20), (2, 2, 12, 10))
    path = tmp_path / "in" / "a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": [{"id": 1, "name": name}]}))
    picture(tmp_path / "in" / "a.jpg")
    with pytest.raises(UserError, match="a.json: the class name .* holds half a character"):
        made(tmp_path)


def test_names_of_files_that_are_no_text_stay_where_they_are(tmp_path):
    from ppkd.importing.convert import convert

    yolo(tmp_path / "in")
    for folder, ending in (("images", b".jpg"), ("labels", b".txt")):
        start = os.fsencode(tmp_path / "in" / folder)
        os.rename(start + b"/x" + ending, start + b"/\xff" + ending)
    convert(str(tmp_path / "in"), str(tmp_path / "out"), images="leave")
    listed = [json.loads(path.read_text())["images"] for path in (tmp_path / "out" / "annotations").glob("*.json")]
    names = [image["file_name"] for images in listed for image in images]
    assert "images/\udcff.jpg" in names and all((tmp_path / "in" / name).is_file() for name in names)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_lists_in_another_encoding_are_refused_with_the_right_one(encoding, tmp_path):
    yolo(tmp_path / "in")
    (tmp_path / "in" / "data.yaml").unlink()
    (tmp_path / "in" / "classes.txt").write_bytes("größe\np\n".encode(encoding))
    with pytest.raises(UserError, match="classes.txt: cannot be read: it is not in UTF-8, save it so"):
        made(tmp_path)
