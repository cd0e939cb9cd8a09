"""Three hundred annotation files: the doctor's verdict, the start of training and pycocotools' own counts agree."""

import contextlib
import io
import json
import random

from pycocotools.coco import COCO

from ppkd.files.yaml_io import clone
from tests.fuzz.test_annotations import SOUND, coco_config, coco_folder, opened, scanned  # noqa: F401  # fixtures

FILES = 300
BOXES = {
    "crowd": {"iscrowd": 1}, "true": {"iscrowd": True}, "ignored": {"ignore": 1}, "no area": {"area": 0},
    "flat": {"bbox": [1, 1, 3, 0]}, "negative": {"bbox": [5, 5, -3, 2]}, "outside": {"bbox": [20, 1, 3, 2]},
    "all zero": {"bbox": [0, 0, 0, 0]}, "beyond": {"bbox": [5, 4, 30, 30]}, "nowhere": {"image_id": 9},
    "float": {"image_id": 1.0, "category_id": 2.0}, "outline": {"segmentation": [[1, 1, 5, 1, 5, 5]]},
}  # fmt: skip
GRAVE = {
    "no such category": {"category_id": 9}, "endless": {"bbox": [1, 1, float("inf"), 2]}, "three": {"bbox": [1, 2, 3]},
    "a word": {"bbox": ["a", 1, 2, 3]}, "neither": {"iscrowd": "maybe"}, "no image": {"image_id": None},
}  # fmt: skip


def each(key, value):
    return lambda made: [entry.update({key: value(entry[key])}) for entry in made["images"]]


def alike(part, key, value):
    def change(made):
        for entry in made[part]:
            entry["id"] = value(entry["id"])
        for entry in made["annotations"]:
            entry[key] = value(entry[key])

    return change


FILE = {
    "text": alike("images", "image_id", lambda given: str(int(given))),
    "words": alike("images", "image_id", lambda given: f"image {int(given)}"),
    "floats": alike("categories", "category_id", float), "sizes": each("width", str),
}  # fmt: skip
GRAVE_FILE = {
    "one more": lambda made: made["categories"].append({"id": 3, "name": "z"}), "flat": each("height", lambda _: 0),
    "one id": each("id", lambda _: 1), "no number": each("width", lambda _: None), "nowhere": each("file_name", len),
    "no name": lambda made: made["categories"][1].pop("name"),
}  # fmt: skip


def generated(seed):
    """A file, and whether something in it is what nothing starts with."""
    draw = random.Random(seed)
    made, grave = clone(SOUND), draw.random() < 0.25
    made["annotations"] = []
    odd = draw.choice([0.1, 0.5, 1.0])
    kinds = draw.sample(list(BOXES), draw.randint(1, 4))
    for number in range(draw.randint(0, 12)):
        box = [draw.randint(0, 4), draw.randint(0, 3), draw.randint(1, 4), draw.randint(1, 3)]
        entry = {"id": number + draw.choice([0, 1]), "image_id": draw.choice([1, 2]), "category_id": 1, "iscrowd": 0}
        made["annotations"].append(entry | {"bbox": box, "area": box[2] * box[3]})
        if draw.random() < odd:
            made["annotations"][-1].update(clone(BOXES[draw.choice(kinds)]))
    if draw.random() < 0.3:
        (change := draw.choice([*FILE.values(), *GRAVE_FILE.values()]))(made)
        if change in GRAVE_FILE.values():
            return made, True
    if grave and made["annotations"]:
        draw.choice(made["annotations"]).update(clone(GRAVE[draw.choice(list(GRAVE))]))
        return made, True
    return made, False


def counted(path):
    """Boxes to learn from by pycocotools' own index."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    boxes = [entry for image in coco.getImgIds() for entry in coco.imgToAnns[image]]
    boxes = [entry for entry in boxes if not entry["iscrowd"] and not entry.get("ignore") and entry["area"] > 0]
    return [entry for entry in boxes if min(entry["bbox"][2:]) > 0]


def test_three_hundred_files(coco_config, coco_folder, quiet):  # noqa: F811
    path, verdicts = coco_folder / "x.json", {True: 0, False: 0}
    for seed in range(FILES):
        made, grave = generated(seed)
        path.write_text(json.dumps(made))
        with quiet():
            scan, data = scanned(coco_config), opened(coco_config)
        starts = not isinstance(data, str)
        assert starts == (not scan.of("error")), (seed, data, dict(scan.counts))
        assert not (grave and starts), (seed, dict(scan.counts))
        verdicts[starts] += 1
        if grave:
            continue
        kept = counted(path)
        inside = [entry for entry in kept if entry["bbox"][0] < 8]
        assert starts == bool(inside), seed
        assert scan.kept == len(inside), seed
        if starts:
            assert sum(len(record["gt_bbox"]) for record in data.roidbs) == len(kept), seed
    assert min(verdicts.values()) > FILES / 10, verdicts
