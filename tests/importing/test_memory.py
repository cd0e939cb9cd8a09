"""What an import holds of each image is little, so that a million of them fit into the memory."""

import json
import os
import tracemalloc

import pytest
from PIL import Image

from ppkd.importing.convert import FORMATS, _measured, _names, _place_images, _write, read

BOXES = [(0.5 + number, 1.25, 7.5, 6.75) for number in range(6)]


def _voc(folder, name):
    tags = "".join(
        f"<object><name>cat</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        "</object>"
        for x1, y1, x2, y2 in BOXES
    )
    size = "<size><width>8</width><height>8</height><depth>3</depth></size>"
    text = f"<annotation><folder>x</folder><filename>{name}.png</filename>{size}{tags}</annotation>"
    (folder / f"{name}.xml").write_text(text, encoding="utf-8")


def _yolo(folder, name):
    (folder / "data.yaml").write_text("names: [cat]\ntrain: .\n", encoding="utf-8")
    rows = (f"0 {(x1 + x2) / 16} {(y1 + y2) / 16} {(x2 - x1) / 8} {(y2 - y1) / 8}" for x1, y1, x2, y2 in BOXES)
    (folder / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")


def _labelme(folder, name):
    shapes = [{"label": "cat", "shape_type": "rectangle", "points": [[a, b], [c, d]]} for a, b, c, d in BOXES]
    content = {"imagePath": f"{name}.png", "imageWidth": 8, "imageHeight": 8, "shapes": shapes}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("write", [_voc, _yolo, _labelme])
def test_an_import_holds_three_kilobytes_of_an_image(write, tmp_path):
    def held(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "0.png")
        for number in range(count):
            if number:
                os.link(folder / "0.png", folder / f"{number}.png")
            write(folder, str(number))
        tracemalloc.start()
        source, _ = read(str(folder), write.__name__[1:])
        source.names = _names(source, None)
        entries = _measured(source)
        _place_images(entries, str(folder), str(tmp_path), "leave")
        with open(tmp_path / "out.json", "w", encoding="utf-8") as file:
            _write(entries, source.names, file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    held(2)  # what is imported with the first
    assert (held(170) - held(50)) / 120 < 3 * 1024
    content = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [len(content[key]) for key in ("images", "annotations", "categories")] == [50, 300, 1]
    assert write.__name__[1:] in FORMATS and content["annotations"][6]["bbox"] == [0.5, 1.25, 7.0, 5.5]
