"""The AP that a command tells is what pycocotools alone says of the detections that were written. The data set has what
makes pycocotools or ppdet count otherwise: annotation ids from 0, ids as text, crowds, an image that cannot be read."""

import copy
import io
import json
import pathlib
from unittest import mock

import pytest

from ppkd.data.shapes import generate
from ppkd.reporting.material import gather
from ppkd.study.runs import open_runs
from ppkd.terminal.log import handler
from tests.bridge.test_coco import COCO, ap, opened
from tests.helpers_runs import DEMO, SHIPPED, by_hand
from tests.helpers_tools import call

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
BAD = 2  # which of the validation images is cut off


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The folder of the data set."""
    folder = pathlib.Path(generate(tmp_path_factory.mktemp("ap") / "shapes", train=4, val=8, size=192, seed=3))
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        content["annotations"][4]["iscrowd"] = 1
        (folder / "annotations" / f"plain_{split}.json").write_text(json.dumps(content))
        for number, entry in enumerate(content["annotations"]):
            entry |= {"id": number, "image_id": f"i{entry['image_id']}", "category_id": f"c{entry['category_id']}"}
            entry["iscrowd"] = bool(entry["iscrowd"])
        for key in ("image", "category"):
            for entry in content["images" if key == "image" else "categories"]:
                entry["id"] = f"{key[0]}{entry['id']}"
        path.write_text(json.dumps(content))
    image = folder / "val" / content["images"][BAD]["file_name"]
    image.write_bytes(image.read_bytes()[:2000])
    (folder / "val" / content["images"][0]["file_name"]).write_bytes((folder / "train" / "000001.jpg").read_bytes())
    return folder


@pytest.fixture
def truth(sets):
    """``(pycocotools' own COCO, ids of the images that can be read)`` of the plain annotations."""
    coco = opened(sets / "annotations" / "plain_val.json", COCO)
    images = [image["id"] for image in coco.dataset["images"]]
    return coco, images[:BAD] + images[BAD + 1 :]


def options(sets):
    return [f"dataset_dir={sets}", "max_bad_images=20%", "EvalReader.batch_size=2", "worker_num=0"]


def evaluated(sets, weights, out):
    """What ``ppkd eval`` tells, and by hand what it is of the ``bbox.json`` that it writes."""
    given = ["-o", *options(sets), f"weights={weights}"]
    assert call("eval", "-c", DEMO, "--json", out / "ap.json", "--output_eval", out, *given) == (0, "")
    found = json.loads((out / "bbox.json").read_text())
    for entry in found:  # with the file's own ids
        entry |= {key: int(entry[key][1:]) for key in ("image_id", "category_id")}
    return json.loads((out / "ap.json").read_text()), found


def test_eval(sets, truth, tmp_path):
    told, found = evaluated(sets, SHIPPED, tmp_path)
    assert tuple(told) == KEYS and told["AP"] > 0.2
    assert list(told.values()) == pytest.approx(ap(truth[0], found, truth[1])[:6], abs=1e-6)


def test_train_eval(sets, truth, tmp_path):
    given = [*options(sets), f"pretrain_weights={SHIPPED}", f"save_dir={tmp_path}", "TrainReader.batch_size=2"]
    given += ["epoch=1", "LearningRate.base_lr=0.0001"]
    log = io.StringIO()
    with mock.patch.object(handler(), "stream", log):
        assert call("train", "-c", DEMO, "--eval", "--max_steps", "1", "-o", *given) == (0, "")
    assert "W EvalDataset: 1 of 8 images are training images too, the first: " in log.getvalue()
    folder = tmp_path / DEMO.stem
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (told,) = (record for record in records if record["kind"] == "eval")
    _, found = evaluated(sets, folder / "model_final.pdparams", tmp_path / "out")
    assert [told[key] for key in KEYS] == pytest.approx(ap(truth[0], found, truth[1])[:6], abs=1e-6)


def test_compare_and_report(sets, truth, tmp_path):
    folders = [by_hand(tmp_path / str(seed), sets, seed, 0.3 * seed, more=options(sets)[1:]) for seed in (0, 1)]
    assert call("compare", *folders, "--json", tmp_path / "found.json") == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    told = {run["folder"]: run for group in found["groups"] for run in group["runs"]}
    subjects = {subject.run.folder: subject for subject in gather(open_runs(folders)).subjects}
    numbers = [[entry["id"] for entry in truth[0].dataset[key]] for key in ("images", "categories")]
    for folder in folders:
        (path,) = pathlib.Path(folder, "detections").glob("*.json")
        results = copy.deepcopy(json.loads(path.read_text())["results"])
        for entry in results:  # counted from 1 where the file has text
            entry["image_id"] = numbers[0][entry["image_id"] - 1]
            entry["category_id"] = numbers[1][entry["category_id"] - 1]
        expected = ap(truth[0], results, truth[1])[:6]
        assert expected[0] > 0.1
        assert [told[folder][key] for key in KEYS] == pytest.approx(expected, abs=1e-6)
        assert [subjects[folder].stats[key] for key in KEYS] == pytest.approx(expected, abs=1e-6)
