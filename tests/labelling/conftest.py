"""A labelled data set, photographs without labels, and a teacher that knows what is on them."""

import json
import os
import shutil

import pytest

from ppkd.data.shapes import generate
from ppkd.demo.demo import SHIPPED_TEACHER, TEACHER_CONFIG

TEACHER = f"{TEACHER_CONFIG}={SHIPPED_TEACHER}"


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Folders ``labelled`` (data set) and ``photos`` (images whose annotations are known, in ``truth.json``)."""
    folder = tmp_path_factory.mktemp("label")
    made = generate(folder / "made", train=8, val=16, size=192, seed=5)
    more = generate(folder / "more", train=10, val=1, size=192, seed=77)
    labelled = folder / "labelled"
    (labelled / "images").mkdir(parents=True)
    shutil.copytree(os.path.join(made, "annotations"), labelled / "annotations")
    for split in ("train", "val"):
        path = labelled / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for entry in content["images"]:
            name = f"{split}_{entry['file_name']}"
            shutil.copy(os.path.join(made, split, entry["file_name"]), labelled / "images" / name)
            entry["file_name"] = name
        path.write_text(json.dumps(content))
    photos = folder / "photos"
    (photos / "below").mkdir(parents=True)
    for number, name in enumerate(sorted(os.listdir(os.path.join(more, "train")))):
        shutil.copy(os.path.join(more, "train", name), photos / ("below" if number % 2 else "") / name)
    shutil.copy(os.path.join(more, "annotations", "instances_train.json"), folder / "truth.json")
    return folder
