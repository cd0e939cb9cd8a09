"""What a file says wrongly is refused by its value, or counted; what is only unusual is read as training reads it."""

import json

import pytest

from ppkd.errors import UserError
from ppkd.files.class_names import given_names, names_beside
from ppkd.importing import convert as module
from ppkd.importing.convert import convert, read
from tests.helpers_tools import write
from tests.importing.test_sizes import picture


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr(module, "draw", lambda *_: None)


def coco(folder, entries, categories=("o",), sizes=True):
    """Entries are ``(number of the image, box, more keys)``; the picture is 40 x 20."""
    count = max(number for number, *_ in entries) + 1
    images = [{"id": n, "file_name": f"{n}.jpg"} | ({"width": 40, "height": 20} if sizes else {}) for n in range(count)]
    for number in range(count):
        picture(folder / f"{number}.jpg")
    annotations = [
        {"id": i, "image_id": number, "category_id": 1, "bbox": box} | more
        for i, (number, box, more) in enumerate(entries)
    ]
    named = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
    write(folder / "x.json", json.dumps({"images": images, "annotations": annotations, "categories": named}))


def made(folder):
    """The summary, and the annotations of a set that is imported, by image and box."""
    text = convert(str(folder / "in"), str(folder / "out"))
    found = []
    for path in sorted((folder / "out" / "annotations").glob("*.json")):
        content = json.loads(path.read_text())
        names = {image["id"]: image["file_name"] for image in content["images"]}
        found += [entry | {"file": names[entry["image_id"]]} for entry in content["annotations"]]
    return text, sorted(found, key=lambda entry: (entry["file"], entry["bbox"]))


@pytest.mark.parametrize(
    "crowd, is_crowd", [("0", 0), ("false", 0), (False, 0), (None, 0), ("1", 1), ("yes", 1), (1, 1)]
)
def test_flags_and_areas_are_read_as_training_reads_them(crowd, is_crowd, tmp_path):
    triangle = {"area": 32, "segmentation": [[1, 1, 9, 1, 1, 9]]}
    coco(tmp_path / "in", [(0, [1, 1, 8, 8], triangle | {"iscrowd": crowd}), (1, [1, 1, 8, 8], {"ignore": crowd}),
                           (2, [2, 2, 8, 8], {"area": "30"}), (3, [30, 2, 20, 8], {"area": 150})])  # fmt: skip
    text, (first, second, third, cut) = made(tmp_path)
    assert (first["iscrowd"], first["area"], first["segmentation"]) == (is_crowd, 32, triangle["segmentation"])
    assert second.get("ignore", 0) == is_crowd and ("1 x boxes with `ignore`" in text) == bool(is_crowd)
    assert (second["area"], third["area"], cut["area"]) == (64, 30, 80)


@pytest.mark.parametrize("more", [{"iscrowd": "some"}, {"ignore": 0.5}, {"area": "large"}, {"bbox": [1, 2, 3]}])
def test_what_stands_for_nothing_is_refused_by_its_key(more, tmp_path):
    coco(tmp_path / "in", [(0, [1, 1, 5, 5], {}), (1, [1, 1, 5, 5], more)])
    with pytest.raises(UserError, match=f"x.json: annotation 1: {next(iter(more))} has to be"):
        made(tmp_path)


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("boxes", [
    [[20, 10, 39, 19], [25, 12, 30, 19]],
    [[10 + n, 5, 20 + n, 19] for n in range(9)],
    [[1, 1, 4, 4], [5, 2, 9, 9]] + [[20 + n, 10, 30 + n, 19] for n in range(8)],
])  # fmt: skip
def test_two_corners_for_a_box_are_refused_before_they_are_cut_off(boxes, sizes, tmp_path):
    coco(tmp_path / "in", [(n % 2, box, {}) for n, box in enumerate(boxes)], sizes=sizes)
    with pytest.raises(UserError, match="x.json: corner-boxes: bbox has to be x, y, width, height"):
        made(tmp_path)


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_shares_for_pixels_are_refused(form, tmp_path):
    if form == "coco":
        coco(tmp_path / "in", [(n, [0.1, 0.2, 0.5, 0.5], {}) for n in range(2)])
    else:
        for name in "ab":
            picture(tmp_path / "in" / f"{name}.jpg")
            box = "<xmin>.1</xmin><ymin>.1</ymin><xmax>.6</xmax><ymax>.9</ymax>"
            text = f"<annotation><object><name>o</name><bndbox>{box}</bndbox></object></annotation>"
            write(tmp_path / "in" / f"{name}.xml", text)
    with pytest.raises(UserError, match="bbox has to be in pixels, not in shares of the image"):
        made(tmp_path)


def test_boxes_that_reach_beyond_are_no_corners_where_one_could_be_none(tmp_path):
    coco(tmp_path / "in", [(0, [20, 10, 30, 19], {}), (1, [30, 10, 15, 5], {})])
    assert "2 x objects beyond the edge of their image: cut off there" in made(tmp_path)[0]


@pytest.mark.parametrize("names, told", [(("o", "p", "o"), 2), (("o", "o", " o "), 3)])
def test_categories_of_one_name_become_one_class_and_are_told(names, told, tmp_path):
    coco(tmp_path / "in", [(0, [1, 1, 5, 5], {}), (1, [1, 1, 5, 5], {"category_id": 3})], names)
    text, entries = made(tmp_path)
    assert {entry["category_id"] for entry in entries} == {1}
    assert f"{told} x categories that are called 'o': they become one class" in text


def test_two_categories_of_one_id_are_refused(tmp_path):
    coco(tmp_path / "in", [(0, [1, 1, 5, 5], {}), (1, [1, 1, 5, 5], {})], ("o", "p"))
    text = (tmp_path / "in" / "x.json").read_text()
    write(tmp_path / "in" / "x.json", text.replace('{"id": 2, "name"', '{"id": "1", "name"'))
    with pytest.raises(UserError, match="two categories have one id"):
        made(tmp_path)


def yolo(folder, names=None, rows="0 .5 .5 .2 .2", images=("a", "b"), **keys):
    for name in images:
        picture(folder / "images" / f"{name}.jpg")
        write(folder / "labels" / f"{name}.txt", rows)
    if names is not None:
        lines = [f"{key}: {value}" for key, value in {"names": names, **keys}.items()]
        write(folder / "data.yaml", "\n".join(lines) + "\n")


NAMES = {
    "[yes, no]": ["yes", "no"], "[1e3, 007, 0x10]": ["1e3", "007", "0x10"], "{'1': b, '0': a}": ["a", "b"],
    "{0: off, 1: ~}": ["off", "~"], "[2024-01-01, 12:30, null]": ["2024-01-01", "12:30", "null"],
}  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
def test_names_are_text_as_it_is_written(names, tmp_path):
    yolo(tmp_path / "in", names)
    assert read(str(tmp_path / "in"))[0].names == NAMES[names]
    assert given_names(str(tmp_path / "in" / "data.yaml")) == NAMES[names]
    (tmp_path / "in" / "data.yaml").rename(tmp_path / "w.names.yml")
    assert names_beside(str(tmp_path / "w.pdparams"))[0] == NAMES[names]


@pytest.mark.parametrize("names, told", [
    ("{1: a, 2: b}", "numbered 1, 2"), ("{0: a, '2': b}", "numbered 0, 2"), ("{0: a, 00: b}", "numbered|twice"),
    ("{0: a, '0': b}", "a class has two names"), ("[a, '']", None), ("{0: a, 1: }", "list of names"),
    ("{a: 0}", "list of names"), ("[[a]]", "list of names"),
])  # fmt: skip
def test_gaps_in_the_numbers_of_names_are_refused(names, told, tmp_path):
    yolo(tmp_path / "in", names)
    if told is None:
        assert read(str(tmp_path / "in"))[0].names[0] == "a"
        return
    with pytest.raises(UserError, match=f"data.yaml.*({told})"):
        read(str(tmp_path / "in"))


@pytest.mark.parametrize("row, kept", [("0 -.02 .5 .2 .2", [0, 8, 3.2, 4]), ("0 1.05 .5 .2 .2", [38, 8, 2, 4]),
                                       ("0 -.05 .5 .1 .5 .1 .9", [0, 10, 4, 8])])  # fmt: skip
def test_what_is_a_little_beyond_the_edge_is_cut_off(row, kept, tmp_path):
    yolo(tmp_path / "in", "[o]", row)
    text, entries = made(tmp_path)
    assert entries[0]["bbox"] == kept and "2 x objects beyond the edge of their image: cut off there" in text


@pytest.mark.parametrize("row, told", [
    ("0 -.2 .9 .2 .2", "found -0.2"), ("0 .5 .5 1.2 .2", "found 1.2"), ("0 .9 -3 .1 .9 .1 .8", "found -3"),
    ("0 .9 .9 -.05 .2", "below 0, found -0.05"),
])  # fmt: skip
def test_what_is_far_beyond_is_refused_by_its_value(row, told, tmp_path):
    yolo(tmp_path / "in", "[o]", f"0 .5 .5 .2 .2\n{row}")
    with pytest.raises(UserError, match=f"a.txt:2: .*{told}"):
        read(str(tmp_path / "in"))


@pytest.mark.parametrize("start", ["./images/", "images/", "/home/other/set/images/", "..\\images\\"])
def test_names_with_spaces_stand_in_yolos_lists(start, tmp_path):
    yolo(tmp_path, "[o]", images=("im 1", "im 2", "im3", "x"), train="train.txt", val="val.txt")
    write(tmp_path / "train.txt", f"{start}im 1.jpg\n{start}im3.jpg\n{start}gone.jpg\n")
    write(tmp_path / "val.txt", f"{start}im 2.jpg\n{start}im3.jpg\n")
    source, _ = read(str(tmp_path))
    splits = {each.path.split("/")[-1]: each.split for each in source.pictures}
    assert splits == {"im 1.jpg": "train", "im3.jpg": "train", "im 2.jpg": "val"}
    assert source.dropped == {"listed images that are not there": 1, "images that data.yaml does not list": 1,
                              "images that are listed for val and for train, which is taken": 1}  # fmt: skip


@pytest.mark.parametrize("where", ["", "lists/"])
def test_a_listed_image_is_not_replaced_by_one_of_another_splits_folder(where, tmp_path):
    for path in ("images/train/a", "images/train/b", "images/val/c"):
        picture(tmp_path / f"{path}.jpg")
        write(tmp_path / f"{path.replace('images', 'labels')}.txt", "0 .5 .5 .2 .2")
    write(tmp_path / "data.yaml", f"names: [o]\ntrain: /other/{where}train.txt\nval: /other/{where}val.txt\n")
    write(tmp_path / where / "train.txt", "images/train/a.jpg\n")
    write(tmp_path / where / "val.txt", "images/val/b.jpg\nimages/val/c.jpg\n")
    source, _ = read(str(tmp_path))
    assert {each.path[-5]: each.split for each in source.pictures} == {"a": "train", "c": "val"}
    assert (
        source.dropped["listed images that are not there"] == source.dropped["images that data.yaml does not list"] == 1
    )


def test_lists_of_one_name_are_told_apart_by_their_folders(tmp_path):
    yolo(tmp_path, "[o]", train="train/list.txt", val="val/list.txt")
    for split, name in (("train", "a"), ("val", "b")):
        write(tmp_path / split / "list.txt", f"../images/{name}.jpg\n")
    assert {each.path[-5]: each.split for each in read(str(tmp_path))[0].pictures} == {"a": "train", "b": "val"}


@pytest.mark.parametrize("data, name_of", [(True, "obj"), (True, "own"), (False, "obj")])
def test_darknets_folders_are_yolo(data, name_of, tmp_path):
    for folder, name in (("obj_train_data", "a b"), ("obj_valid_data", "c"), ("obj_train_data", "d")):
        picture(tmp_path / folder / f"{name}.jpg")
        write(tmp_path / folder / f"{name}.txt", "1 .5 .5 .2 .2")
    write(tmp_path / f"{name_of}.names", "car\nbig van\n\n")
    write(tmp_path / "train.txt", "data/obj_train_data/a b.jpg\ndata/obj_train_data/d.jpg\n")
    write(tmp_path / "valid.txt", "data/obj_valid_data/c.jpg\n")
    keys = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/own.names\nbackup = backup/\n"
    if data:
        write(tmp_path / "obj.data", keys)
    source, form = read(str(tmp_path))
    assert form == "yolo" and source.names == ["car", "big van"]
    splits = [each.split for each in source.pictures]
    assert splits == (["train", "train", "val"] if data else [None, None, None])


def test_an_empty_line_between_names_is_refused(tmp_path):
    yolo(tmp_path)
    write(tmp_path / "classes.txt", "car\n\nvan\n")
    with pytest.raises(UserError, match="classes.txt:2: an empty line between names"):
        read(str(tmp_path))


@pytest.mark.parametrize("others, same", [("van\ncar\n", False), ("car\nvan\nbus\n", False), ("car\nvan", True)])
@pytest.mark.parametrize("yaml", [False, True])
def test_lists_of_names_that_differ_are_refused(others, same, yaml, tmp_path):
    yolo(tmp_path)
    for folder, names in (("train", "car\nvan\n"), ("val", others)):
        text = f"names: [{', '.join(names.split())}]\n" if yaml else names
        write(tmp_path / folder / ("data.yaml" if yaml else "classes.txt"), text)
    if same:
        assert read(str(tmp_path))[0].names == ["car", "van"]
        return
    with pytest.raises(UserError, match="val/.*: names other classes than .*train/"):
        read(str(tmp_path))


def test_images_that_no_split_names_are_told(tmp_path):
    for path in ("train/a", "val/b", "more/c", "more/d"):
        picture(tmp_path / "in" / f"{path}.jpg")
        write(tmp_path / "in" / f"{path}.txt", "0 .5 .5 .2 .2")
    write(tmp_path / "in" / "classes.txt", "o\n")
    assert "2 x images that no split of the data set names: taken for train" in made(tmp_path)[0]
