"""Boxes are of the pixels that are trained on, whatever size and orientation the annotations were made for."""

import json

import numpy as np
import pytest
from PIL import Image

from ppkd.bridge.images import decode
from ppkd.errors import UserError
from ppkd.importing import convert as module
from ppkd.importing.convert import convert
from tests.helpers_tools import write

BOX = (6, 4, 18, 12)  # corners, in a picture of 40 x 20
PLAIN = [6, 4, 12, 8]


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr(module, "draw", lambda *_: None)


def picture(path, width=40, height=20, orientation=None, box=None):
    """Dark, and bright inside of `box`."""
    pixels = np.full((height, width, 3), 40, "uint8")
    pixels[::3] = sum(path.stem.encode()) % 90  # no two equal
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    exif = Image.Exif()
    if orientation:
        exif[0x112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0, exif=exif)


def coco(folder, name, size, box):
    x1, y1, x2, y2 = box
    polygon = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
             "area": (x2 - x1) * (y2 - y1) / 2, "segmentation": polygon}  # fmt: skip
    image = {"id": 1, "file_name": f"{name}.jpg", "width": size[0], "height": size[1]}
    content = {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "o"}]}
    write(folder / f"{name}.json", json.dumps(content))


def voc(folder, name, size, box):
    keys = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    text = f"<annotation>{sides}<object><name>o</name><bndbox>{keys}</bndbox></object></annotation>"
    write(folder / f"{name}.xml", text)


def labelme(folder, name, size, box):
    shape = {"label": "o", "shape_type": "rectangle", "points": [list(box[:2]), list(box[2:])]}
    content = {"imagePath": f"{name}.jpg", "shapes": [shape], "imageWidth": size[0], "imageHeight": size[1]}
    write(folder / f"{name}.json", json.dumps(content))


def cvat(folder, name, size, box):
    at = " ".join(f'{k}="{v}"' for k, v in zip(("xtl", "ytl", "xbr", "ybr"), box))
    image = f'<image name="{name}.jpg" width="{size[0]}" height="{size[1]}"><box label="o" {at}/></image>'
    write(folder / f"{name}.xml", f"<annotations>{image}</annotations>")


def label_studio(folder, name, size, box):
    x1, y1, x2, y2 = (100 * n / side for n, side in zip(box, (*size, *size)))
    value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": ["o"]}
    result = {"type": "rectanglelabels", "original_width": size[0], "original_height": size[1], "value": value}
    task = {"id": 1, "data": {"image": f"{name}.jpg"}, "annotations": [{"result": [result]}]}
    write(folder / f"{name}.json", json.dumps([task]))


FORMATS = {"coco": coco, "voc": voc, "labelme": labelme, "cvat": cvat, "label-studio": label_studio}


def imported(folder, form):
    """Text, and name -> the one annotation of it."""
    text = convert(str(folder / "in"), str(folder / "out"), form=form)
    found = {}
    for path in (folder / "out" / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        names = {image["id"]: image["file_name"][0] for image in content["images"]}
        found |= {names[entry["image_id"]]: entry for entry in content["annotations"]}
    return text, found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("times", [(2, 2), (0.5, 0.5), (81 / 40, 2)])
def test_another_size_of_the_same_shape_is_scaled_to(form, times, tmp_path):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.jpg")
    size = round(40 * times[0]), round(20 * times[1])
    FORMATS[form](tmp_path / "in", "a", size, [n * t for n, t in zip(BOX, times * 2)])
    FORMATS[form](tmp_path / "in", "b", (40, 20), BOX)
    text, found = imported(tmp_path, form)
    assert found["a"]["bbox"] == pytest.approx(PLAIN, abs=0.01) and found["b"]["bbox"] == PLAIN
    assert found["a"]["area"] == pytest.approx(found["b"]["area"], abs=0.1)
    assert np.allclose(found["a"]["segmentation"], found["b"]["segmentation"], atol=0.01)
    assert "1 x images of another size than annotated, but the same shape" in text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(20, 40), (40, 30), (60, 20)])
def test_another_shape_is_left_out_and_told(form, size, tmp_path):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.jpg")
        FORMATS[form](tmp_path / "in", name, size if name == "a" else (40, 20), BOX)
    text, found = imported(tmp_path, form)
    assert set(found) == {"b", "c"} and "1 x images of another size and shape than annotated: left out" in text


@pytest.mark.parametrize("form", ["coco", "voc", "labelme", "cvat"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("stored", [1, 2])
def test_boxes_of_stored_pixels_are_turned_with_them(form, orientation, stored, tmp_path):
    """They are where the object is in the picture as it is decoded for training."""
    picture(tmp_path / "in" / "a.jpg", orientation=orientation, box=BOX)
    picture(tmp_path / "in" / "b.jpg", orientation=orientation)
    FORMATS[form](tmp_path / "in", "a", (40 * stored, 20 * stored), [n * stored for n in BOX])
    FORMATS[form](tmp_path / "in", "b", (20, 40), BOX)  # was annotated as it is shown
    text, found = imported(tmp_path, form)
    rows, columns = np.nonzero(decode(str(tmp_path / "in" / "a.jpg"))[:, :, 0] > 150)
    x, y, w, h = found["a"]["bbox"]
    assert [x, y, x + w, y + h] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    if form == "coco":
        outline = np.reshape(found["a"]["segmentation"], [-1, 2])
        assert np.allclose([*outline.min(0), *outline.max(0)], [x, y, x + w, y + h]) and found["a"]["area"] == 48
    assert found["b"]["bbox"] == PLAIN
    assert "1 x photographs that EXIF turns, with boxes of the pixels as stored: boxes are turned" in text


@pytest.mark.parametrize("orientation, size", [(3, (40, 20)), (6, (0, 0)), (8, ("", ""))])
def test_where_nothing_says_whether_boxes_are_turned_it_is_told(orientation, size, tmp_path):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.jpg", orientation=orientation)
        voc(tmp_path / "in", name, size, BOX)
    text, found = imported(tmp_path, "voc")
    assert found["a"]["bbox"] == PLAIN and "2 x photographs that EXIF turns; nothing says" in text


def test_run_lengths_of_another_size_are_left_out_and_told(tmp_path):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.jpg")
        coco(tmp_path / "in", name, (80, 40), [2 * n for n in BOX])
        content = json.loads((tmp_path / "in" / f"{name}.json").read_text())
        content["annotations"][0] |= {"segmentation": {"size": [40, 80], "counts": [0, 3200]}, "iscrowd": 1}
        write(tmp_path / "in" / f"{name}.json", json.dumps(content))
    text, found = imported(tmp_path, "coco")
    assert found["a"]["segmentation"] == [] and found["a"]["bbox"] == PLAIN
    assert "2 x masks as run lengths of another size" in text


def test_a_size_that_is_no_number_is_refused(tmp_path):
    picture(tmp_path / "in" / "a.jpg")
    voc(tmp_path / "in", "a", ("wide", 20), BOX)
    with pytest.raises(UserError, match="a.xml: width has to be a number, found 'wide'"):
        imported(tmp_path, "voc")
