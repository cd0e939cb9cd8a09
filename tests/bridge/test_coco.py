"""Annotation files as people have them mean the same as the plain ones, to the last digit of AP."""

import contextlib
import copy
import io
import json
import random

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppkd.bridge.annotations import Found, weigh
from ppkd.bridge.coco import Tidied, restore_ids
from ppkd.bridge.coco_reading import coco_class, handed_over, only, read_tidied, reading


def sound(images=6, boxes=24, seed=0):
    """A plain annotation file, and detections near its boxes."""
    draw = random.Random(seed)
    content = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(images)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [],
    }
    found = []
    for number in range(boxes):
        box = [draw.randint(0, 40), draw.randint(0, 30), draw.randint(4, 40), draw.randint(4, 30)]
        entry = {"id": number + 1, "image_id": number % images + 1, "category_id": draw.choice([3, 7]), "bbox": box}
        content["annotations"].append(entry | {"area": box[2] * box[3], "iscrowd": int(number == 5)})
        moved = [value + draw.uniform(-2, 2) for value in box]
        found.append({"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": moved,
                      "score": draw.random()})  # fmt: skip
    return content, found


def ap(truth, found, images=None):
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(truth, truth.loadRes(copy.deepcopy(found)), "bbox")
        if images is not None:
            run.params.imgIds = images
        run.evaluate()
        run.accumulate()
        run.summarize()
    return list(run.stats)


def opened(path, kind=None):
    with contextlib.redirect_stdout(io.StringIO()):
        return (kind or coco_class())(str(path))


def each(key, change, part="annotations"):
    def apply(content):
        for number, entry in enumerate(content[part]):
            entry[key] = change(entry.get(key), number)

    return apply


def ids(change, kind="image"):
    def apply(content):
        for entry in content["images" if kind == "image" else "categories"]:
            entry["id"] = change(entry["id"])
        for entry in content["annotations"]:
            entry[f"{kind}_id"] = change(entry[f"{kind}_id"])

    return apply


def mixed(content):
    for entry in content["annotations"]:
        entry["image_id"] = str(entry["image_id"])  # the images' are whole numbers


HARMLESS = {
    "annotation ids from 0": each("id", lambda _, number: number),
    "one annotation id": each("id", lambda *_: 7),
    "negative annotation ids": each("id", lambda _, number: -number),
    "no annotation ids": lambda content: [entry.pop("id") for entry in content["annotations"]],
    "annotation ids as text": each("id", lambda given, _: f"a{given}"),
    "image ids as text": ids(lambda given: f"2026_{given:04d}"),
    "image ids as padded text": ids(lambda given: f"{given:06d}"),
    "image ids that are hashes": ids(lambda given: f"{given * 7919:x}f-{given}"),
    "image ids beyond a tensor": ids(lambda given: 10**30 + given),
    "image ids as floats": ids(float),
    "text of whole image ids": mixed,
    "image ids as text of floats": ids(lambda given: f"{given}.0"),
    "text of whole image ids as floats": lambda c: [e.update(image_id=f"{e['image_id']}.0") for e in c["annotations"]],
    "category ids as text": ids(str, "category"),
    "category ids as words": ids(lambda given: f"c{given}", "category"),
    "category ids as floats": ids(float, "category"),
    "iscrowd true and false": each("iscrowd", lambda given, _: bool(given)),
    "iscrowd as text": each("iscrowd", lambda given, _: str(given)),
    "iscrowd where it is": lambda c: [entry.pop("iscrowd") for entry in c["annotations"] if not entry["iscrowd"]],
    "sizes as text": each("width", lambda given, _: str(given), "images"),
    "boxes as text": each("bbox", lambda box, _: [str(value) for value in box]),
    "areas as text": each("area", lambda area, _: str(area)),
    "ignore of nothing": each("ignore", lambda *_: None),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_ways_to_write_it_mean_the_same(case, tmp_path):
    plain, found = sound()
    other = copy.deepcopy(plain)
    HARMLESS[case](other)
    path, same = tmp_path / "other.json", tmp_path / "plain.json"
    path.write_text(json.dumps(other))
    same.write_text(json.dumps(plain))
    notes = Found()
    tidied = read_tidied(str(path), (), notes.note)
    weigh(tidied, notes)
    assert (notes.listed, notes.kept) == (24, 23) and not notes.of("error", "warning")
    numbers = [image["id"] for image in tidied.content["images"]], [c["id"] for c in tidied.content["categories"]]
    theirs = [
        {**entry, "image_id": numbers[0][entry["image_id"] - 1], "category_id": numbers[1][entry["category_id"] == 7]}
        for entry in found
    ]
    expected = ap(opened(same, COCO), found)
    assert ap(opened(path), theirs) == expected, "of pycocotools itself, to the last digit"


def test_pycocotools_takes_the_id_0_for_nothing(tmp_path):
    """Once this fails, pycocotools has been mended."""
    content, found = sound()
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    assert ap(opened(path, COCO), found) != ap(opened(path), found)


@pytest.mark.parametrize("case", ["image ids as text", "category ids as words", "image ids as padded text"])
def test_written_results_have_the_ids_of_the_file(case, tmp_path):
    content, found = sound()
    HARMLESS[case](content)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    tidied = read_tidied(str(path))
    numbers = [image["id"] for image in tidied.content["images"]], [c["id"] for c in tidied.content["categories"]]
    for entry in found:
        entry["image_id"] = numbers[0][entry["image_id"] - 1]
        entry["category_id"] = numbers[1][[3, 7].index(entry["category_id"])]
    expected = ap(opened(path), found)
    (tmp_path / "bbox.json").write_text(json.dumps(found))
    restore_ids(str(tmp_path), tidied.original)
    assert ap(opened(path, COCO), json.loads((tmp_path / "bbox.json").read_text())) == expected


def test_two_spellings_of_a_number_stay_two_images():
    content, _ = sound()
    for entry, given in zip(content["images"], ["1", "01", "2", "3", "4", "5"]):
        entry["id"] = given
    content["annotations"] = [{**content["annotations"][0], "image_id": given} for given in ("01", "1", 1)]
    tidied = Tidied(content)
    assert [image["id"] for image in tidied.content["images"]] == [1, 2, 3, 4, 5, 6]
    assert [entry["image_id"] for entry in tidied.content["annotations"]] == [2, 1], "1 may be either"


def test_outlines():
    square, line = [1, 1, 9, 1, 9, 9], [1, 1, 9, 9]
    content, _ = sound(boxes=4)
    for entry, outline in zip(content["annotations"], ([square, line], square, [line], [[]])):
        entry["segmentation"] = outline
    found = [entry["segmentation"] for entry in Tidied(content).content["annotations"]]
    assert found == [[square], [square], [], []]


def test_a_file_that_was_read_is_not_read_again_and_only_once(tmp_path):
    content, _ = sound()
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with handed_over(str(path), {"images": [], "categories": [], "annotations": []}):
        assert not opened(path).imgs
        assert len(opened(path).imgs) == 6


def test_ppdet_reads_so_inside_of_the_block_alone():
    from pycocotools import coco

    with reading():
        assert coco.COCO is coco_class()
    assert coco.COCO is COCO


def test_images_that_were_not_seen_do_not_count(tmp_path):
    content, found = sound()
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    seen = [entry for entry in found if entry["image_id"] in (2, 3, 5)]
    expected = ap(opened(path, COCO), seen, [2, 3, 5])
    with only({2, 3, 5}):
        assert ap(opened(path), seen) == expected
    assert ap(opened(path), seen) != expected
