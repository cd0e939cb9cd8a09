"""Pascal VOC is judged as COCO's files are: what is kept is what ppdet keeps, and what is wrong is told by file."""

import cv2
import numpy as np
import pytest

from ppkd.bridge.annotations import Found
from ppkd.bridge.classwise import watched_classes
from ppkd.bridge.datasets import judge, open_dataset
from ppkd.bridge.voc import is_voc
from ppkd.bridge.workspace import build_detector, scope
from ppkd.diagnosis.data import scan_data, verdict
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged
from ppkd.recipe.recipe import load_recipe
from ppkd.training.evaluation import evaluate
from tests.conftest import CONFIGS
from tests.helpers_tools import write

BOXES = [(4, 4, 20, 20), (10, 8, 60, 44), (0, 0, 64, 48), (30, 30, 40, 41)]
SIZE = "<size><width>64</width><height>48</height><depth>3</depth></size>"
NAMES = ["cat", "dog", "a b"]


def thing(box, name="cat", more="<difficult>0</difficult>"):
    corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def xml(*objects, size=SIZE):
    return f"<annotation>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def config(tmp_path):
    """A config with a set of four images, each with three boxes."""
    for number, box in enumerate(BOXES):
        (tmp_path / "pics").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pics" / f"{number}.jpg"), np.full((48, 64, 3), 40 * number, "uint8"))
        write(tmp_path / "xml" / f"{number}.xml", xml(thing(box), thing(box, "dog", ""), thing(box, "a b")))
    write(tmp_path / "list.txt", "".join(f"pics/{n}.jpg xml/{n}.xml\n" for n in range(4)))
    write(tmp_path / "labels.txt", "\n".join(NAMES))
    given = {"dataset_dir": str(tmp_path), "image_dir": "", "anno_path": "list.txt", "label_list": "labels.txt"}
    section = Tagged("VOCDataSet", given | {"data_fields": ["image", "gt_bbox", "gt_class", "difficult"]})
    more = [f"dataset_dir={tmp_path}", "train_annotations=x.json", "num_classes=3", "metric=VOC"]
    loaded = load_recipe(str(CONFIGS / "retinanet_tiny.yml"), None, more).student
    loaded.pop("EvalDataset")
    return loaded | {"TrainDataset": section}


def opened(config):
    with scope(config):
        return open_dataset("TrainDataset", config)


def test_classwise_leaves_no_curves_in_the_current_folder(config, tmp_path, monkeypatch):
    config["RetinaHead"]["nms"]["score_threshold"] = 0.0
    config |= {"classwise": True, "EvalDataset": config["TrainDataset"], "map_type": "11point"}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with scope(config) as table, watched_classes() as found:
        evaluate(build_detector(config), table)
    assert [row["objects"] for row in found[0].rows] == [4, 4, 4] and len(found[0].curves[0][0])
    assert list((tmp_path / "here").iterdir()) == []


def test_a_sound_set(config):
    found = Found()
    tidied, _ = judge("TrainDataset", config, "list.txt", found)
    assert is_voc(config["TrainDataset"]) and not is_voc({"name": "COCODataSet"})
    assert (found.listed, found.kept, found.of("error", "warning")) == (12, 12, [])
    assert [entry["name"] for entry in tidied.content["categories"]] == NAMES
    assert sum(len(record["gt_bbox"]) for record in opened(config).roidbs) == 12


LOST = {
    "no width": ("empty-box", xml(thing((5, 5, 5, 9)), thing((1, 1, 9, 9)))),
    "upside down": ("negative-box", xml(thing((5, 9, 9, 5)), thing((1, 1, 9, 9)))),
    "elsewhere": ("box-outside", xml(thing((70, 5, 90, 9)), thing((1, 1, 9, 9)))),
    "of the last column": ("empty-box", xml(thing((63, 5, 64, 9)), thing((1, 1, 9, 9)))),
    "over the edge": ("box-beyond-edge", xml(thing((-9, -9, 99, 99)), thing((1, 1, 9, 9)))),
    "no annotation": ("missing-xml", None),
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_lost_is_counted_as_ppdet_loses_it(case, config, tmp_path):
    kind, text = LOST[case]
    path = tmp_path / "xml" / "1.xml"
    path.unlink() if text is None else path.write_text(text)
    (scan,) = scan_data(config)
    assert scan.counts[kind] == 1 and verdict([scan], config) is None
    assert sum(len(record["gt_bbox"]) for record in opened(config).roidbs) == scan.kept


GRAVE = {
    "another class": ("unknown-category: .*object 1 of .*1.xml: 'emu' is not in", xml(thing(BOXES[0], "emu"))),
    "a word": ("broken-box: .*needs `name` and four numbers", xml(thing(("a", 1, 2, 3)))),
    "endless": ("broken-box: ", xml(thing((1, 1, "inf", 3)))),
    "no box": ("broken-box: ", xml("<object><name>cat</name></object>")),
    "no size": ("broken-xml: .*1.xml: `size` has to be", xml(thing(BOXES[0]), size="")),
    "size 0": ("broken-xml: ", xml(thing(BOXES[0]), size=SIZE.replace("48", "0"))),
    "cut off": ("broken-xml: .*1.xml: no element found", "<annotation><size>"),
    "hard": ("broken-xml: .*`difficult` is neither", xml(thing(BOXES[0], more="<difficult>?</difficult>"))),
}


@pytest.mark.parametrize("case", GRAVE)
def test_what_nothing_starts_with_is_told_by_file(case, config, tmp_path):
    message, text = GRAVE[case]
    write(tmp_path / "xml" / "1.xml", text)
    with pytest.raises(UserError, match=f"TrainDataset: .*{message}"):
        opened(config)
    scans = scan_data(config)
    assert message.split(":")[0] in verdict(scans, config)


@pytest.mark.parametrize("line", ["", "pics/1.jpg"])
def test_a_line_of_the_list_that_is_none(line, config, tmp_path):
    write(tmp_path / "list.txt", f"pics/0.jpg xml/0.xml\n{line}\npics/1.jpg xml/1.xml\n")
    with pytest.raises(UserError, match="broken-list: each line .*an image and its annotation .line 2 of .*list.txt: "):
        opened(config)


def test_not_one_image_is_found(config, tmp_path):
    text = (tmp_path / "list.txt").read_text()
    write(tmp_path / "list.txt", text.replace("pics/", "photos/"))
    with pytest.raises(UserError, match="TrainDataset: no image of .*list.txt was found under "):
        opened(config)


def test_not_one_box_is_left(config, tmp_path):
    for number in range(4):
        write(tmp_path / "xml" / f"{number}.xml", xml(thing((5, 5, 5, 9))))
    with pytest.raises(UserError, match="nothing-kept: .*4 of 4 boxes: 4 empty-box"):
        opened(config)
