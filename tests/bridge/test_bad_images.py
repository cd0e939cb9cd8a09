"""Bad training images are skipped, counted and, if too many, the end of the run; nothing else of it changes."""

import json
import pathlib
import shutil

import cv2
import numpy as np
import pytest

from ppkd.bridge import bad_images
from ppkd.bridge.bad_images import BadImages, share
from ppkd.bridge.images import BadImage, decode, fault
from ppkd.bridge.workspace import scope
from ppkd.errors import UserError
from ppkd.training.stages import Stages
from ppkd.training.trainer import Trainer
from tests.helpers_training import FOUR, differing, fit


@pytest.fixture
def broken(shapes, tmp_path):
    """Function that copies the data set with some training images broken; gives the overrides and their paths."""

    def make(*numbers, content=b"no picture", remove=False):
        folder = tmp_path / "broken"
        shutil.copytree(shapes, folder)
        names = json.loads((folder / "annotations" / "instances_train.json").read_text())["images"]
        paths = [folder / "train" / names[number]["file_name"] for number in numbers]
        for path in paths:
            path.unlink() if remove else path.write_bytes(content)
        return [f"dataset_dir={folder}", FOUR, "max_bad_images=50%"], [str(path) for path in paths]

    return make


def batches(loaded, epoch, workers=0, begin=0):
    stages = Stages({**loaded.student, "worker_num": workers}, 0)
    loader = stages.loader(epoch)
    counter = "curr_iter"  # ppdet's, of samples since the process began
    found = [{k: np.asarray(v) for k, v in x.items() if k != counter} for x in loader.epoch(epoch, begin)]
    return found, stages.bad.found


def ids(found):
    return [batch["im_id"].reshape(-1).tolist() if batch else [] for batch in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_alone_is_left_out_of_its_batch(workers, recipe, broken):
    overrides, paths = broken(2, 7)
    whole, _ = batches(recipe("ppyoloe", distil=False, overrides=[FOUR]), 1)
    found, bad = batches(recipe("ppyoloe", distil=False, overrides=overrides), 1, workers)
    assert sorted(bad) == sorted(paths) and set(bad.values()) == {"not an image that OpenCV can decode"}
    gone = {pathlib.Path(path).name for path in paths}
    assert len(gone) == 2 and len(found) == len(whole) == 3
    flat = [number for batch in ids(whole) for number in batch]
    kept = [number for batch in ids(found) for number in batch]
    assert len(flat) == 12 and len(kept) == 10 and [n for n in flat if n in kept] == kept
    for ours, theirs, all_of in zip(found, ids(found), ids(whole)):
        assert theirs == [number for number in all_of if number in theirs]
        assert not any(key.startswith("ppkd_bad") for key in ours)


def test_it_is_the_same_from_the_middle_of_an_epoch_on(recipe, broken):
    loaded = recipe("ppyoloe", distil=False, overrides=broken(2, 7)[0])
    whole, rest = batches(loaded, 1)[0], batches(loaded, 1, begin=1)[0]
    assert differing(whole[1:], rest) == []


@pytest.mark.parametrize(
    "content, reason",
    [(b"", "empty file"), (b"\xff\xd8\xff\xe0 and no more", "truncated"), (None, "missing")],
)
def test_every_kind_is_told(content, reason, recipe, broken, tmp_path):
    overrides, (path,) = broken(3, content=content or b"", remove=content is None)
    loaded = recipe("ppyoloe", distil=False, overrides=[*overrides, "epoch=1"])
    trainer = fit(loaded)
    assert trainer.step == (2 if content is None else 3), "eleven images make two batches of four"
    run = pathlib.Path(loaded.output_dir)
    assert (run / bad_images.FILE).read_text() == f"{path}\t{reason}\n"
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["bad_images"] == 1


def test_a_truncated_jpeg_would_be_read_without_a_word(shapes, tmp_path):
    whole = next(pathlib.Path(shapes, "train").glob("*.jpg")).read_bytes()
    path = tmp_path / "cut.jpg"
    for size in (len(whole) - 2, len(whole) // 2):
        path.write_bytes(whole[:size])
        assert cv2.imread(str(path)) is not None
        assert fault(path) == "truncated"
    for content in (whole, whole + b"\0\0 padding"):
        path.write_bytes(content)
        assert fault(path) is None and decode(path).shape == (64, 64, 3)


def test_a_truncated_png_is_told(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.RandomState(0).randint(0, 255, (40, 30, 3), "uint8"))
    assert fault(path) is None
    path.write_bytes(path.read_bytes()[:-14])
    with pytest.raises(BadImage, match=r"a\.png: truncated"):
        decode(path)


def test_a_batch_of_nothing_takes_no_step_and_moves_the_schedule(recipe, broken):
    overrides, paths = broken(0, 1, 2, 3)
    given = [*overrides, "TrainReader.shuffle=false", "epoch=1", "max_bad_images=1.0"]
    loaded = recipe("ppyoloe", distil=False, overrides=given)
    with Trainer.open(loaded) as trainer:
        taken = []
        trainer.optimizer.step = lambda step=trainer.optimizer.step: (taken.append(trainer.batch), step())
        trainer.run()
        assert (trainer.step, taken, trainer.lr.last_epoch) == (3, [1, 2], 3)
        assert sorted(trainer._stages.bad.found) == sorted(paths)


def test_resumed_equals_uninterrupted_with_bad_images(recipe, broken, tmp_path):
    overrides, _ = broken(1, 6)
    given = [*overrides, "epoch=2", "snapshot_steps=1"]
    whole = fit(recipe("ppyoloe", overrides=[*given, f"save_dir={tmp_path}/whole"])).state()
    parts = recipe("ppyoloe", overrides=[*given, f"save_dir={tmp_path}/parts"])
    fit(parts, max_steps=2)
    resumed = fit(parts, resume="auto").state()
    assert len(whole["bad_images"]) == 2
    for key in ("student", "terms", "optimizer", "step", "bad_images"):
        assert differing({key: whole[key]}, {key: resumed[key]}) == [], key


def test_too_many_end_the_run_with_their_names(recipe, broken):
    overrides, paths = broken(0, 5)
    loaded = recipe("ppyoloe", distil=False, overrides=[*overrides, "max_bad_images=10%"])
    with pytest.raises(UserError) as error:
        fit(loaded)
    assert str(error.value).startswith("2 of 12 training images cannot be read or transformed, more than")
    assert all(f"{path}: not an image that OpenCV can decode" in str(error.value) for path in paths)


@pytest.mark.parametrize("given, bad, total, goes_on", [
    ({}, 1, 60, True), ({}, 5, 50, True), ({}, 6, 60, False), ({}, 1, 9, False), ({}, 10, 1000, True),
    ({}, 11, 1000, False), ({"max_bad_images": "1%"}, 1, 60, False),
])  # fmt: skip
def test_a_handful_ends_no_small_run_unless_that_is_said(given, bad, total, goes_on):
    assert BadImages(given).allows(bad, total) == goes_on


def test_missing_ones_are_counted_before_the_first_step(recipe, broken):
    overrides, paths = broken(4, 9, remove=True)
    with pytest.raises(UserError, match="2 of 12 training images .*10%.*: missing; .*: missing"):
        fit(recipe("ppyoloe", distil=False, overrides=[*overrides, "max_bad_images=10%"]))


def test_a_failing_transform_names_the_image(recipe, shapes, monkeypatch):
    from ppdet.data.transform import operators

    def fail(self, sample, context=None):
        raise ValueError("no such flip")

    monkeypatch.setattr(operators.RandomFlip, "apply", fail)
    with pytest.raises(UserError, match="jpg: cannot be transformed: ValueError: no such flip"):
        fit(recipe("ppyoloe", distil=False))


def test_a_transform_that_fails_without_a_word_is_told_by_its_line(recipe, shapes, monkeypatch):
    from ppdet.data.transform import operators

    def fail(self, sample, context=None):
        raise AssertionError  # as an `assert` without a message is, which pytest would give one

    monkeypatch.setattr(operators.RandomFlip, "apply", fail)
    told = r"AssertionError: raise AssertionError .* \(in test_bad_images.py, line \d+\)"
    with pytest.raises(UserError, match=told):
        fit(recipe("ppyoloe", distil=False))


def test_one_of_a_mixture_is_named(recipe, broken):
    overrides, (path,) = broken(4)
    mixed = "TrainReader.sample_transforms=[{Decode: {}}, {Mixup: {alpha: 1.5, beta: 1.5}}]"
    loaded = recipe("ppyoloe", distil=False, overrides=[*overrides, mixed, "TrainReader.mixup_epoch=5"])
    with scope(loaded.student):
        found, bad = batches(loaded, 0)
    assert list(bad) == [path] and 0 < sum(map(len, ids(found))) < 12


@pytest.mark.parametrize("value, number", [("1%", 0.01), (0.05, 0.05), (0, 0.0), ("100%", 1.0), (1, 1.0)])
def test_a_share(value, number):
    assert share(value) == number


@pytest.mark.parametrize("value", ["many", "-1%", 2, True, None])
def test_no_share(value):
    with pytest.raises(UserError, match="max_bad_images has to be a share such as 1% or 0.01"):
        BadImages({"max_bad_images": value})
