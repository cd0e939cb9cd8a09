"""One small scene in every format comes out as the same COCO, and what is not taken over is counted."""

import json
import pathlib

import cv2
import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.importing.convert import convert, read
from ppkd.importing.yolo import _within
from tests.helpers_tools import write

# name -> objects as (class, x1, y1, x2, y2); images are 80 wide and 40 high.
SCENE = {
    "a": [("car", 8, 4, 40, 20), ("van", 40, 20, 72, 36)],
    "b": [("van", 0, 0, 16, 8)],
    "c": [],
    "d": [("car", 4, 4, 44, 24)],
}
WIDTH, HEIGHT = 80, 40


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), "uint8"))


def voc(folder):
    for seed, (name, objects) in enumerate(SCENE.items()):
        picture(folder / "JPEGImages" / f"{name}.jpg", seed)
        text = "".join(
            f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x1, y1, x2, y2 in objects
        )
        path = f"C:\\somewhere\\{name}.jpg"
        write(folder / "Annotations" / f"{name}.xml", f"<annotation><filename>{path}</filename>{text}</annotation>")
    write(folder / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    write(folder / "ImageSets" / "Main" / "val.txt", "c\nd\n")


def yolo(folder):
    for seed, (name, objects) in enumerate(SCENE.items()):
        split = "train" if name in "ab" else "val"
        picture(folder / "images" / split / f"{name}.jpg", seed)
        if name == "c":
            continue  # background needs no file
        rows = []
        for label, x1, y1, x2, y2 in objects:
            number = ["car", "van"].index(label)
            if name == "d":  # as a polygon
                corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
                rows.append(" ".join(map(str, [number, *(v for x, y in corners for v in (x / WIDTH, y / HEIGHT))])))
            else:
                box = (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT
                rows.append(" ".join(map(str, [number, *box])))
        write(folder / "labels" / split / f"{name}.txt", "\n".join(rows))
    splits = "path: /home/other/set\ntrain: ../images/train\nval: ../images/val\n"
    write(folder / "data.yaml", splits + "nc: 2\nnames: [car, van]\n")


def labelme(folder):
    for seed, (name, objects) in enumerate(SCENE.items()):
        split = "train" if name in "ab" else "val"
        picture(folder / split / f"{name}.jpg", seed)
        shapes = [{"label": "tip", "shape_type": "point", "points": [[1, 1]]}]
        for label, x1, y1, x2, y2 in objects:
            shapes.append({"label": label, "shape_type": "rectangle", "points": [[x2, y2], [x1, y1]]})
        content = {"imagePath": f"..\\{name}.jpg", "imageData": None, "shapes": shapes}
        write(folder / split / f"{name}.json", json.dumps(content))


def cvat(folder):
    images = []
    for seed, (name, objects) in enumerate(SCENE.items()):
        picture(folder / "images" / f"{name}.jpg", seed)
        boxes = "".join(
            f'<box label="{n}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>' for n, x1, y1, x2, y2 in objects
        )
        split = "train" if name in "ab" else "Validation"
        boxes += '<points label="car" points="1,1"/>'
        images.append(f'<image id="{seed}" name="{name}.jpg" subset="{split}">{boxes}</image>')
    labels = "".join(f"<label><name>{n}</name></label>" for n in ("car", "van"))
    text = f"<annotations><meta><task><labels>{labels}</labels></task></meta>{''.join(images)}</annotations>"
    write(folder / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>{text}')


def label_studio(folder):
    tasks = []
    for seed, (name, objects) in enumerate(SCENE.items()):
        split = "train" if name in "ab" else "val"
        picture(folder / split / f"{name}.jpg", seed)
        result = [
            {"type": "rectanglelabels", "value": {
                "x": x1 / WIDTH * 100, "y": y1 / HEIGHT * 100, "width": (x2 - x1) / WIDTH * 100,
                "height": (y2 - y1) / HEIGHT * 100, "rotation": 0, "rectanglelabels": [n]}}
            for n, x1, y1, x2, y2 in objects
        ]  # fmt: skip
        result.append({"type": "choices", "value": {"choices": ["day"]}})
        image = f"/data/upload/1/0a1b2c3d-{name}.jpg" if seed else f"/data/local-files/?d=x%2F{name}.jpg"
        tasks.append({"id": seed, "data": {"image": image}, "annotations": [{"result": result}]})
    tasks.append({"id": 9, "data": {"image": "a.jpg"}, "annotations": []})
    write(folder / "export.json", json.dumps(tasks))


def roboflow(folder):
    for split, names in (("train", "ab"), ("valid", "cd")):
        images, entries = [], []
        for number, name in enumerate(names):
            picture(folder / split / f"{name}.jpg", "abcd".index(name))
            images.append({"id": number, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT})
            for label, x1, y1, x2, y2 in SCENE[name]:
                category = {"car": 1, "van": 2}[label]
                entries.append({"id": len(entries), "image_id": number, "category_id": category,
                                "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
        categories = [{"id": i, "name": n} for i, n in enumerate(("vehicles", "car", "van"))]
        content = {"images": images, "annotations": entries, "categories": categories}
        write(folder / split / "_annotations.coco.json", json.dumps(content))


FORMATS = {"voc": voc, "yolo": yolo, "labelme": labelme, "cvat": cvat, "label-studio": label_studio, "coco": roboflow}


def content_of(output):
    """Split -> {stem of the image: its objects as corners}."""
    found = {}
    for path in sorted((output / "annotations").glob("instances_*.json")):
        content = json.loads(path.read_text())
        assert [c["name"] for c in content["categories"]] == ["car", "van"]
        assert [c["id"] for c in content["categories"]] == [1, 2]
        names = {image["id"]: pathlib.Path(image["file_name"]).stem for image in content["images"]}
        assert all((image["width"], image["height"]) == (WIDTH, HEIGHT) for image in content["images"])
        assert all((output / "images" / image["file_name"]).is_file() for image in content["images"])
        assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
        objects = {name: [] for name in names.values()}
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            assert entry["area"] == pytest.approx(w * h, rel=1e-3) and entry["iscrowd"] == 0
            label = ["car", "van"][entry["category_id"] - 1]
            objects[names[entry["image_id"]]].append((label, *(round(n, 2) for n in (x, y, x + w, y + h))))
        found[path.stem.removeprefix("instances_")] = objects
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_scene_comes_out_of_each_format(form, tmp_path):
    FORMATS[form](tmp_path / "in")
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    text = convert(str(tmp_path / "in"), str(tmp_path / "out"))
    expected = {split: {name: SCENE[name] for name in names} for split, names in (("train", "ab"), ("val", "cd"))}
    assert content_of(tmp_path / "out") == expected
    assert f": {form}, split as the data set says" in text and "dataset_dir=" in text
    assert (tmp_path / "out" / "summary.png").stat().st_size > 10000
    counted = {
        "labelme": "4 x shapes of the kind point", "cvat": "4 x shapes of the kind points",
        "yolo": "1 x images without a label file", "label-studio": "1 x tasks that nobody",
        "coco": "1 x category 'vehicles', which no box uses",
    }  # fmt: skip
    assert counted.get(form, "") in text
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("folders", [("train2017", "val2017"), ("images/train", "images/valid")])
def test_images_of_the_same_names_are_told_apart_by_their_splits(folders, tmp_path):
    for seed, (folder, split) in enumerate(zip(folders, ("train", "val"))):
        picture(tmp_path / folder / "1.jpg", seed)
        content = {
            "images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 1, "name": split}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        }  # fmt: skip
        write(tmp_path / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    source, _ = read(str(tmp_path))
    found = {picture_.split: picture_.path for picture_ in source.pictures}
    assert found == {split: str(tmp_path / folder / "1.jpg") for folder, split in zip(folders, ("train", "val"))}


def test_what_is_turned_becomes_the_upright_box_around(tmp_path):
    picture(tmp_path / "t.jpg", 0)
    box = '<box label="car" xtl="30" ytl="15" xbr="50" ybr="25" rotation="90"/>'
    write(tmp_path / "a.xml", f'<annotations><image name="t.jpg">{box}</image></annotations>')
    source, _ = read(str(tmp_path))
    xs, ys = zip(*source.pictures[0].shapes[0].points)
    assert np.allclose([min(xs), min(ys), max(xs), max(ys)], [35, 10, 45, 30])
    assert source.dropped == {"angles of boxes: the upright box around is taken": 1}


def test_label_studios_boxes_turn_about_their_upper_left_corner(tmp_path):
    picture(tmp_path / "t.jpg", 0)
    value = {"x": 50, "y": 50, "width": 25, "height": 25, "rotation": 90, "rectanglelabels": ["car"]}
    result = [{"type": "rectanglelabels", "value": value}]
    task = {"id": 1, "data": {"image": "t.jpg"}, "annotations": [{"result": result}]}
    write(tmp_path / "e.json", json.dumps([task]))
    (picture_,) = read(str(tmp_path))[0].pictures
    xs, ys = zip(*picture_.shapes(WIDTH, HEIGHT)[0].points)
    assert np.allclose([min(xs), min(ys), max(xs), max(ys)], [30, 20, 40, 40])


WITHIN = [  # folders of an image, of a path in data.yaml, and how many agree
    ("train/images", "train/images", 2), ("train/images", "other/set/train/images", 2), ("train/images", "train", 1),
    ("train/images/deep", "x/train/images", 2), ("valid/images", "train/images", -1), ("images", "train/images", 1),
    ("images/train", "train/images", 1), ("training/images", "train/images", -1), ("images/train", "", 0),
    ("a/train/images", "train/images", -1), (".", "train/images", -1), ("x", "a/x/b", -1),
]  # fmt: skip


@pytest.mark.parametrize("folder, wanted, agreeing", WITHIN)
def test_folders_of_a_data_yaml_are_those_of_another_machine(folder, wanted, agreeing):
    assert _within(folder.split("/"), [part for part in wanted.split("/") if part]) == agreeing


def test_the_folder_that_says_most_gives_the_split(tmp_path):
    """All images are below `images`, and some of them are named for validation."""
    yolo(tmp_path / "in")
    write(tmp_path / "in" / "data.yaml", "train: images\nval: images/val\nnames: [car, van]\n")
    source, _ = read(str(tmp_path / "in"))
    assert {pathlib.Path(each.path).stem: each.split for each in source.pictures} == dict.fromkeys(
        "ab", "train"
    ) | dict.fromkeys("cd", "val")


@pytest.mark.parametrize("points", ["0.1 0.1 2 0.2 0.2 1", "0.1 0.1 0.2 0.2", "0.3 0.3 0 0.4 0.4 0 0.5 0.5 0 0 0 0"])
def test_keypoints_behind_boxes_are_no_polygon(points, tmp_path):
    picture(tmp_path / "p.jpg", 0)
    write(tmp_path / "p.txt", f"0 0.5 0.5 0.25 0.5 {points}\n")
    write(tmp_path / "data.yaml", "names: [car]\nkpt_shape: [2, 3]\n")
    source, _ = read(str(tmp_path))
    (shape,) = source.pictures[0].shapes(WIDTH, HEIGHT)
    assert shape.points == [(30, 10), (50, 30)] and not shape.polygon
    assert source.dropped["keypoints behind boxes"] == 1


IDS = {
    "text": (str, str), "text beside numbers": (int, str), "fractions": (float, lambda given: f"{given}.0"),
    "words": ("image {}".format, "image {}".format),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("case", IDS)
def test_ids_of_coco_files_are_taken_as_training_takes_them(case, encoding, tmp_path):
    roboflow(tmp_path / "in")
    listed, meant = IDS[case]
    for path in (tmp_path / "in").rglob("*.json"):
        content = json.loads(path.read_text())
        for entry in content["images"]:
            entry["id"] = listed(entry["id"])
        for entry in content["annotations"]:
            entry |= {"image_id": meant(entry["image_id"]), "category_id": str(entry["category_id"])}
        path.write_bytes(json.dumps(content).encode(encoding))
    source, _ = read(str(tmp_path / "in"))
    found = {
        pathlib.Path(each.path).stem: [(shape.label, *shape.points[0], *shape.points[1]) for shape in each.shapes]
        for each in source.pictures
    }
    assert found == SCENE


def test_images_of_one_id_are_not_taken_for_each_other(tmp_path):
    roboflow(tmp_path / "in")
    path = tmp_path / "in" / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["images"][1]["id"] = "0"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="_annotations.coco.json: two images have one id"):
        read(str(tmp_path / "in"))
