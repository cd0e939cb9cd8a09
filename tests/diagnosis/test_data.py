"""``ppkd doctor --data`` finds everything that is wrong with images and annotations, and nothing else."""

import json
import math
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from ppkd import cli, commands
from ppkd.bridge.annotations import Found, weigh
from ppkd.bridge.coco import Tidied
from ppkd.bridge.datasets import check_sets, open_dataset
from ppkd.bridge.workspace import scope
from ppkd.diagnosis import data as data_scan
from ppkd.diagnosis.data import KINDS, NOTE, scan_data, verdict
from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS, ROOT

STUDENT = str(CONFIGS / "ppyoloe_tiny.yml")


@pytest.fixture
def copied(shapes, tmp_path):
    """A copy of the data set: its folder, the training annotations, and a function that writes these back."""
    folder = tmp_path / "copied"
    shutil.copytree(shapes, folder)
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    return folder, content, lambda: path.write_text(json.dumps(content))


def scan(folder, *overrides):
    config = load_recipe(STUDENT, None, [f"dataset_dir={folder}", *overrides]).student
    return scan_data(config), config


def test_nothing_is_wrong_with_the_generated_data(shapes):
    scans, config = scan(shapes)
    assert [(s.images, dict(s.counts)) for s in scans] == [(12, {}), (6, {"no-boxes": 1})]
    assert verdict(scans, config) is None and "nothing found" in data_scan.as_text(scans)


def png16(path):
    cv2.imwrite(str(path), np.full((64, 64, 3), 40000, "uint16"))


def cmyk(path):
    Image.new("CMYK", (64, 64)).save(path, "JPEG")


def turned(path):
    image = Image.new("RGB", (48, 64))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, "JPEG", exif=exif)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


IMAGES = {
    "missing-image": lambda path: path.unlink(),
    "unreadable-image": half,
    "cmyk-image": cmyk,
    "image-size": turned,
    "other-format": lambda path: Image.new("RGB", (64, 64)).save(path, "PNG"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image(kind, copied):
    folder, content, _ = copied
    path = folder / "train" / content["images"][3]["file_name"]
    IMAGES[kind](path)
    (train, val), config = scan(folder)
    assert dict(train.counts) == {kind: 1} and set(val.counts) <= {"no-boxes"}
    assert train.examples[kind][0].startswith(str(path))
    bad = kind in ("missing-image", "unreadable-image")
    assert (verdict([train, val], {**config, "max_bad_images": 0}) is not None) == bad
    assert verdict([train, val], {**config, "max_bad_images": "10%"}) is None


def test_an_image_outside_of_the_folder_is_told_and_not_opened(copied, monkeypatch):
    folder, content, write = copied
    shutil.copy(folder / "train" / content["images"][0]["file_name"], folder.parent / "secret.jpg")
    content["images"][0]["file_name"] = "../../secret.jpg"
    write()
    with monkeypatch.context() as patch:
        opened, look = [], data_scan.look
        patch.setattr(data_scan, "look", lambda path, entry: opened.append(path) or look(path, entry))
        (train, val), config = scan(folder)
    assert dict(train.counts) == {"outside-folder": 1} and "outside-folder" in verdict([train, val], config)
    assert len(opened) == 17 and not any("secret" in path for path in opened)
    assert not scan(folder, "allow_outside=true")[0][0].counts


def test_more_categories_than_the_detector_has_classes(copied):
    folder, content, _ = copied
    content["categories"].append({"id": 99, "name": "extra"})
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    scans, config = scan(folder)
    assert "instances_val.json: 1 too-many-categories" in verdict(scans, config)
    with scope(config), pytest.raises(UserError, match="EvalDataset: .*categories, more than num_classes: .*; set -o"):
        open_dataset("EvalDataset", config)


@pytest.mark.parametrize("name", ["train\\{}", "https://x.y/{}?v=1", "/data/local-files/?d=set/{}", "../../{}"])
def test_missing_images_are_told_with_what_finds_them(name, copied):
    folder, content, write = copied
    for image in content["images"]:
        image["file_name"] = name.format(image["file_name"])
    write()
    (train, _), _ = scan(folder)
    assert train.counts["missing-image"] == 12 and not train.counts["outside-folder"]
    assert ": it is there as 000001.jpg: write " in train.examples["missing-image"][0]


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\0/b.jpg", "\ud800.jpg", "x" * 5000, "000001.jpg/x.jpg"])
def test_a_name_that_no_file_can_have_is_missing(name, copied):
    folder, content, write = copied
    content["images"][0]["file_name"] = name
    write()
    assert scan(folder)[0][0].counts["missing-image"] == 1


@pytest.mark.parametrize("content", [b"", b"GIF89a and nothing", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xd9"])
def test_an_image_that_is_none(content, copied):
    folder, annotations, _ = copied
    (folder / "train" / annotations["images"][0]["file_name"]).write_bytes(content)
    assert dict(scan(folder)[0][0].counts) == {"unreadable-image": 1}


@pytest.mark.parametrize("most, dark", [(255, True), (4095, True), (20000, False)])
def test_few_of_sixteen_bits_are_used(most, dark, copied):
    folder, content, write = copied
    content["images"][0]["file_name"] = "deep.png"
    cv2.imwrite(str(folder / "train" / "deep.png"), np.linspace(0, most, 4096).reshape(64, 64).astype("uint16"))
    write()
    kinds = {"16-bit-image": 1} | ({"dark-image": 1} if dark else {})
    assert dict(scan(folder)[0][0].counts) == kinds


def test_sixteen_bits_and_huge(copied, monkeypatch):
    folder, content, write = copied
    content["images"][0]["file_name"] = "deep.png"
    png16(folder / "train" / "deep.png")
    write()
    assert dict(scan(folder)[0][0].counts) == {"16-bit-image": 1}
    monkeypatch.setattr(data_scan, "_HUGE", 4000)
    assert scan(folder)[0][0].counts["huge-image"] == 12


def change(**values):
    return lambda content: content["annotations"][5].update(values)


def without(key):
    return lambda content: content["annotations"][5].pop(key)


def again(key, **values):
    return lambda content: content[key].append({**content[key][0], **values})


ANNOTATIONS = {
    "NaN": ("broken-box", change(bbox=[math.nan, 1, 5, 5])),
    "infinite": ("broken-box", change(bbox=[1, 1, math.inf, 5])),
    "endless": ("broken-box", change(bbox=[1, 1, 10**400, 5])),
    "three numbers": ("broken-box", change(bbox=[1, 1, 5])),
    "negative": ("negative-box", change(bbox=[9, 9, -5, 5])),
    "no width": ("empty-box", change(bbox=[9, 9, 0, 5])),
    "no area": ("empty-box", change(area=0)),
    "outside": ("box-outside", change(bbox=[64, 3, 5, 5])),
    "over the edge": ("box-beyond-edge", change(bbox=[60, 3, 9, 5])),
    "category": ("unknown-category", change(category_id=77)),
    "no category": ("broken-annotation", change(category_id=[1])),
    "no image": ("broken-annotation", without("image_id")),
    "no id": ("annotation-ids", change(id=None)),
    "id 0": ("annotation-ids", change(id=0)),
    "image": ("unknown-image", change(image_id=7777)),
    "crowd": ("crowd", change(iscrowd=1)),
    "lacks area": ("missing-key", without("area")),
    "twice": ("duplicate-annotation", again("annotations")),
    "image twice": ("duplicate-image", lambda c: c["images"].append({**c["images"][1], "id": c["images"][0]["id"]})),
    "file twice": ("duplicate-file", again("images", id=999)),
    "category twice": ("duplicate-category", again("categories", name="other")),
    "no size": ("broken-image-entry", again("images", id=999, width=None)),
    "a text": ("broken-annotation", lambda c: c["annotations"].append("box")),
    "no name": ("broken-category", lambda c: c["categories"].append({"id": 9})),
    "a list as name": ("broken-category", lambda c: c["categories"].append({"id": 9, "name": []})),
    "a text as id": ("other-types", again("images", id="a")),
    "a list as id": ("broken-image-entry", again("images", id=[])),
    "an empty name": ("broken-image-entry", again("images", id=999, file_name="")),
    "the name of a folder": ("broken-image-entry", again("images", id=999, file_name="below/..")),
}


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_an_annotation(case, copied):
    _, content, _ = copied
    kind, wrong = ANNOTATIONS[case]
    wrong(content)
    kinds = set(judged(content).counts) - {"no-boxes", "unused-category"}
    beside = {"duplicate-file", "copied-box"}
    assert kinds - beside == {kind} - beside and kind in kinds and kind in KINDS


def judged(content, **options):
    found = Found()
    weigh(Tidied(content, found.note), found, **options)
    return found


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
@pytest.mark.parametrize("value", [None, {}, 3])
def test_what_is_no_list(copied, key, value):
    folder, content, write = copied
    content[key] = value
    write()
    (train, _), config = scan(folder, "num_classes=3")
    assert train.counts["no-list"] == 1 and train.examples["no-list"] == [f"`{key}` is {type(value).__name__}"]
    with scope(config), pytest.raises(UserError, match="TrainDataset: "):
        open_dataset("TrainDataset", config)


def test_a_training_file_without_annotations(copied):
    folder, content, write = copied
    del content["annotations"]
    write()
    (train, _), config = scan(folder)
    assert train.examples["no-list"] == ["`annotations` is missing"]
    with scope(config), pytest.raises(UserError, match="has no `annotations`: nothing to learn from"):
        open_dataset("TrainDataset", config)


def test_a_file_without_annotations_is_for_predicting(copied):
    folder, _, _ = copied
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    _, config = scan(folder)
    with scope(config):
        with pytest.raises(UserError, match="EvalDataset: .* has no `annotations`: .* or to compare with"):
            open_dataset("EvalDataset", config)
        assert len(open_dataset("EvalDataset", config | {"save_prediction_only": True}).roidbs) == 6


def test_nothing_is_left_to_train_on(copied):
    """Every image that is there lacks a box, and the one with a box is not there."""
    folder, content, write = copied
    first = content["images"][0]
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] == first["id"]]
    assert content["annotations"]
    (folder / "train" / first["file_name"]).unlink()
    write()
    (train, val), config = scan(folder)
    config["TrainDataset"]["allow_empty"] = False
    (refused, _) = scan_data(config)
    assert train.counts["nothing-to-use"] == 0 and refused.counts["nothing-to-use"] == 1
    assert "1 nothing-to-use" in verdict([refused, val], config)
    with scope(config), pytest.raises(UserError, match="TrainDataset: "):
        open_dataset("TrainDataset", config)


@pytest.mark.parametrize("spoil", [half, lambda path: path.write_bytes(b""), lambda path: path.write_text("<html>")])
def test_a_run_that_will_evaluate_needs_a_validation_image_that_can_be_read(copied, spoil):
    folder, _, _ = copied
    first, *rest = sorted((folder / "val").iterdir())
    for path in rest:
        spoil(path)
    _, config = scan(folder)
    with scope(config):
        assert len(check_sets(config)) == 6
    spoil(first)
    (train, val), config = scan(folder)
    assert val.counts["nothing-to-use"] == 1 and "1 nothing-to-use" in verdict([train, val], config)
    with scope(config), pytest.raises(UserError, match="EvalDataset: not one of 6 validation images can be read"):
        check_sets(config)


def test_images_without_a_box(copied):
    _, content, _ = copied
    gone = content["images"][2]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != gone["id"]]
    found = judged(content)
    assert dict(found.examples) == {"no-boxes": [gone["file_name"]]}


def test_the_command(copied, tmp_path, capsys):
    folder, content, write = copied
    change(category_id=77)(content)
    again("annotations")(content)
    write()
    path = tmp_path / "out" / "found.json"
    args = cli.doctor_parser().parse_args(
        ["-c", STUDENT, "--data", "--json", str(path), "-o", f"dataset_dir={folder}", "num_classes=6"]
    )
    with pytest.raises(UserError, match="do not start a run on this data: .*instances_train.json: 1 unknown-category"):
        commands.doctor(args)
    text = capsys.readouterr().out
    assert "unknown-category" in text and "duplicate-annotation" in text and "category_id 77" in text
    found = json.loads(path.read_text())["data"]["TrainDataset"]["found"]
    counts = {kind: item["count"] for kind, item in found.items()}
    assert counts == {"unknown-category": 1, "duplicate-annotation": 1, "copied-box": 1}


NAMED = {
    "a tag": ("EvalDataset: !MOTImageFolder {video_file: x}", "may not name MOTImageFolder: it hands"),
    "a tag elsewhere": ("TestDataset: !MOTImageFolder {video_file: x}", "may not name MOTImageFolder: it hands"),
    "a name": ("EvalDataset: {name: MOTImageFolder, video_file: x}", "may not name MOTImageFolder: it hands"),
    "a transform": ("EvalReader: {sample_transforms: [{DebugVisibleImage: {}}]}", "may not name DebugVisibleImage"),
    "a function": ("TrainReader: {sample_transforms: [{setup_logger: {}}]}", "setup_logger is no class that"),
    "a parameter": ("TrainReader: {sample_transforms: [{Resize: {sizes: 3}}]}", "unexpected keyword argument 'sizes'"),
}


@pytest.mark.parametrize("case", NAMED)
def test_classes_that_no_run_starts_with_are_refused(case, copied, tmp_path):
    """Doctor says no other than training does, and nothing that they do happens."""
    text, told = NAMED[case]
    (tmp_path / "mine.yml").write_text(f"_BASE_: [{STUDENT}]\n{text}\n")
    with pytest.raises(UserError, match=told):
        commands.doctor(
            cli.doctor_parser().parse_args(["-c", f"{tmp_path}/mine.yml", "--data", "-o", f"dataset_dir={copied[0]}"])
        )


def test_without_anything_to_examine():
    with pytest.raises(UserError, match="give --slim_config FILE, or --data"):
        commands.doctor(cli.doctor_parser().parse_args(["-c", STUDENT]))


def test_annotations_of_another_format(copied):
    folder, _, _ = copied
    (folder / "list.txt").write_text("a.jpg a.xml")
    with pytest.raises(UserError, match="only annotations in COCO's format .* and Pascal VOC's"):
        scan(folder, "num_classes=3", "train_annotations=list.txt")


def test_every_grave_kind_has_a_symptom_in_the_docs():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert not [kind for kind, (level, _) in KINDS.items() if level != NOTE and f"`{kind}`" not in text]
