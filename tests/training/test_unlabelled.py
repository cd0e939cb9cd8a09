"""Runs with images without labels beside the labelled ones: resumed to the bit, counted, bad ones left out."""

import json
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest

from ppkd.bridge.unlabelled import KEY
from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training.loader import _Seeded
from ppkd.training.stages import Stages
from ppkd.training.trainer import Trainer
from tests.helpers_training import FOUR, QUICK, differing, fit

PKD = "distill.terms.pkd.weight=20"


@pytest.fixture
def photos(tmp_path):
    """A folder of ten images without labels, one of which is broken."""
    from ppkd.data.shapes import generate

    made = generate(tmp_path / "made", train=9, val=1, size=64, seed=9)
    folder = tmp_path / "photos"
    shutil.copytree(os.path.join(made, "train"), folder)
    (folder / "zz.jpg").write_bytes(b"\xff\xd8 no image")
    return folder


@pytest.fixture
def loaded(recipe, photos, tmp_path):
    def load(*overrides, name="run", ratio=0.5):
        given = f"unlabelled={{images: {photos}, ratio: {ratio}}}"
        more = [FOUR, given, "epoch=2", "max_bad_images=20%", f"save_dir={tmp_path / name}"]
        return recipe(QUICK, "PKD", overrides=[*more, *overrides])

    return load


def weights_of(loaded):
    return paddle.load(os.path.join(loaded.output_dir, "model_final.pdparams"))


def records_of(loaded):
    with open(os.path.join(loaded.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        return [record for record in map(json.loads, file) if record["kind"] == "train"]


def stream(config, epoch=0, begin=0):
    """Sums of the images without labels beside each batch, and how many there are."""
    batches = Stages(config, 0).batches(epoch, begin)
    return [(float(b[KEY]["image"].sum()), b[KEY]["image"].shape[0]) for b in batches if "image" in b[KEY]]


def test_resumed_equals_uninterrupted_with_any_number_of_workers(loaded):
    whole = loaded("snapshot_epoch=2", name="whole")
    fit(whole)
    first, second = loaded("snapshot_epoch=2", name="first"), loaded("snapshot_epoch=2", "worker_num=2", name="second")
    fit(first, max_steps=4)
    fit(second, resume=os.path.join(first.output_dir, "model_final"))
    assert differing(weights_of(first), weights_of(whole)) and differing(weights_of(second), weights_of(whole)) == []
    states = [paddle.load(os.path.join(each.output_dir, "model_final.resume")) for each in (whole, second)]
    assert states[0]["unlabelled"] == states[1]["unlabelled"] and states[0]["unlabelled"]["seen"] == 11
    counted = records_of(whole)[-1]
    assert counted["unlabelled_images"] == 11 and counted["bad_unlabelled_images"] == 1
    assert counted["step"] == 6, "6 steps of 2, of which one image is broken"
    # And they are learned from.
    none = loaded("snapshot_epoch=2", "unlabelled=null", name="none")
    fit(none)
    assert differing(weights_of(none), weights_of(whole))


def test_two_streams_that_are_read_in_threads_draw_what_each_draws_alone():
    class Drawing:
        def __len__(self):
            return 20

        def __getitem__(self, index):
            first = np.random.rand()
            time.sleep(0.001)  # the other thread's turn
            return {"drawn": (first, np.random.rand(), random.random())}

    def read(seed):
        return [_Seeded(Drawing(), seed)[index]["drawn"] for index in range(20)]

    alone = [read(seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, (1, 2))) == alone


def test_all_are_gone_through_before_any_comes_again(loaded):
    stages = Stages(loaded().student, 0)
    files = []
    for epoch in (0, 1):
        for batch in stages.batches(epoch):
            files += batch[KEY]["im_id"].numpy().reshape(-1).tolist() if "im_id" in batch[KEY] else []
    # Ten images are five batches: the sixth begins anew.
    assert sorted(files[:9]) == list(range(9)) and len(files) == 11


def test_what_is_beside_a_batch_depends_on_its_place_and_the_seed(loaded):
    config = loaded().student
    assert stream(config, 1, 1) == stream(config, 1)[1:]
    batches = Stages(config, 1).batches(0)
    assert stream(config) != [(float(b[KEY]["image"].sum()), 2) for b in batches if "image" in b[KEY]]


def test_they_have_a_reader_of_their_own(loaded):
    small = "UnlabelledReader={batch_transforms: [{BatchRandomResize: {target_size: 32, random_size: false, "
    small += "random_interp: false, keep_ratio: false}}, {Permute: {}}, {PadGT: {}}]}"
    batch = next(iter(Stages(loaded(small).student, 0).batches(0)))
    assert batch[KEY]["image"].shape[2:] == [32, 32] and batch["image"].shape[2:] == [64, 64]
    with pytest.raises(UserError, match="ratio says how many"):
        Stages(loaded("UnlabelledReader.batch_size=3").student, 0).loader(0)


def test_no_batch_is_loaded_where_no_term_looks_at_it(loaded):
    with Trainer.open(loaded("distill.terms.pkd.on=labelled")) as trainer:
        assert KEY not in next(trainer._batches(0, 0))


def test_a_recorded_run_goes_on_with_the_same_images_only(loaded, photos):
    first = loaded(name="same")
    fit(first, max_steps=2)
    (photos / "zz.jpg").unlink()
    with pytest.raises(UserError, match="unlabelled: the file's content is another one"):
        fit(loaded(name="same"), resume="auto")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("unlabelled=nowhere", "unlabelled: nowhere: no such folder or file"),
        ("unlabelled=[a]", "has to be an image folder"),
        ("unlabelled.ratoi=2", "no key 'ratoi'; nearest: ratio"),
        ("unlabelled.ratio=0", "unlabelled.ratio has to be a number above 0"),
        ("unlabelled.ratio=5", "fewer than one batch of 20; set a smaller unlabelled.ratio"),
        ("max_bad_images=0", "unlabelled images cannot be read"),
        ("UnlabelledReader.sample_transforms=[]", "^UnlabelledReader: a batch cannot be made"),
        ("UnlabelledReader.sample_transforms=[{Decod: {}}]", "^UnlabelledReader .what it leaves out is TrainReader's"),
        ("UnlabelledReader.mixup_epoch=1", "^UnlabelledReader: mixup_epoch: several images are drawn for one"),
        ("TrainReader.mixup_epoch=1", "^TrainReader: mixup_epoch: several images are drawn for one"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(given, told, loaded):
    with pytest.raises(UserError, match=told):
        fit(loaded(given))


@pytest.mark.parametrize("given, warned", [("distill.stop_epoch=1", True), ("distill.stop_epoch=2", False)])
def test_terms_that_end_before_the_run_are_told(given, warned, loaded, caplog, monkeypatch):
    """The shipped file of PP-YOLOEs teaches for a third of the run."""
    monkeypatch.setattr(logger(), "propagate", True)
    with Trainer.open(loaded(given)):
        assert ("unlabelled: of no use after epoch 1 of 2" in caplog.text) == warned


def test_they_need_a_teacher(recipe, photos):
    with pytest.raises(UserError, match="needs a teacher"):
        fit(recipe(QUICK, distil=False, overrides=[FOUR, f"unlabelled={photos}"]))


def test_images_of_the_validation_set_are_refused(loaded, shapes, photos):
    shutil.copy(os.path.join(shapes, "val", sorted(os.listdir(os.path.join(shapes, "val")))[0]), photos / "aa.jpg")
    with pytest.raises(UserError, match="1 of 11 images are images of the validation set"):
        fit(loaded(), validate=True)
