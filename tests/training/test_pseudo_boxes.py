"""Runs in which a teacher's detections are boxes for images without labels: resumed to the bit, counted, told."""

import os
import shutil

import paddle
import pytest

from ppkd.bridge.class_names import names_of_training
from ppkd.bridge.strong_view import STRONG
from ppkd.bridge.unlabelled import KEY
from ppkd.errors import UserError
from ppkd.training.stages import Stages
from ppkd.training.trainer import Trainer
from tests.helpers_precision import imitate
from tests.helpers_training import FOUR, QUICK, differing, fit
from tests.training.test_unlabelled import records_of, weights_of

METHOD = {QUICK: "PKD", "gfl": "cwd"}
BOXES = "distill.pseudo_boxes={threshold: 0.0}"


@pytest.fixture
def photos(tmp_path):
    """A folder of eight images without labels."""
    from ppkd.data.shapes import generate

    made = generate(tmp_path / "made", train=8, val=1, size=64, seed=9)
    return shutil.copytree(os.path.join(made, "train"), tmp_path / "photos")


@pytest.fixture
def loaded(recipe, photos, tmp_path):
    def load(*overrides, name="run"):
        given = f"unlabelled={{images: {photos}, ratio: 0.5}}"
        return recipe(QUICK, "PKD", overrides=[FOUR, given, "epoch=2", f"save_dir={tmp_path / name}", *overrides])

    return load


def views(config):
    batches = Stages(config, 0, boxed=True).batches(0)
    return [(b[KEY]["image"].numpy(), b[KEY].get(STRONG)) for b in batches]


@pytest.mark.parametrize("family", METHOD)
def test_views_differ_in_colours_alone(family, recipe, photos):
    given = [FOUR, f"unlabelled={{images: {photos}, ratio: 0.5}}"]

    def of(*more):
        return views(recipe(family, METHOD[family], overrides=[*given, *more]).student)

    weak = of("UnlabelledReader={strong: []}")
    for (image, other), (plain, none) in zip(of("UnlabelledReader={strong: [{RandomGrayscale: {prob: 0}}]}"), weak):
        assert none is None and (image == plain).all() and (other.numpy() == plain).all()
    made = of()
    assert all((image == plain).all() for (image, _), (plain, _) in zip(made, weak))
    assert all(other.shape == list(image.shape) and (other.numpy() != image).any() for image, other in made)


@pytest.mark.parametrize(
    ("given", "boxed", "told"),
    [
        ("[{RandomFlip: {}}]", True, "RandomFlip is none of the transforms that leave everything in its place"),
        ("[{RandomGrayscal: {}}]", True, "nearest: RandomGrayscale"),
        ("RandomGrayscale", True, "has to be a list such as"),
        ("[{RandomGrayscale: {chance: 1}}]", True, "UnlabelledReader.strong: TypeError"),
        ("[{RandomGrayscale: {}}]", False, "goes with distill.pseudo_boxes"),
    ],
)
def test_views_that_cannot_be_are_refused(given, boxed, told, loaded):
    with pytest.raises(UserError, match=told):
        Stages(loaded(f"UnlabelledReader={{strong: {given}}}").student, 0, boxed).loader(0)


def test_resumed_equals_uninterrupted(loaded):
    whole = loaded("snapshot_epoch=2", BOXES, name="whole")
    fit(whole)
    first, second = (loaded("snapshot_epoch=2", BOXES, name=name) for name in ("first", "second"))
    fit(first, max_steps=4)
    fit(second, resume=os.path.join(first.output_dir, "model_final"))
    assert differing(weights_of(first), weights_of(whole)) and differing(weights_of(second), weights_of(whole)) == []
    states = [paddle.load(os.path.join(each.output_dir, "model_final.resume")) for each in (whole, second)]
    assert differing(states[0]["terms"], states[1]["terms"]) == []
    record = records_of(whole)[-1]
    assert record["boxed_images"] <= record["unlabelled_images"] == 12 and record["teacher_boxes"] > 0
    assert record["pseudo_boxes"] > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_teacher_in_a_lower_type_finds_boxes_in_float32(dtype, loaded, monkeypatch):
    """Under mixed precision; what is not finite stops the run."""
    blocks = imitate(monkeypatch)
    mixed = [BOXES, f"amp_dtype={dtype}", f"teacher_dtype={dtype}"]
    run = loaded(*mixed, "epoch=1")
    fit(run, amp=True)
    assert blocks.count(("O1", dtype)) >= 3, "where the teacher detects"
    record = records_of(run)[-1]
    assert record["teacher_boxes"] > 0 and 0 < record["pseudo_boxes"] < 100 and record["loss"] < 1000


def test_scores_found_before_are_taken_and_kept_for_resuming(loaded):
    names = names_of_training(loaded().student)
    with Trainer.open(loaded("distill.pseudo_boxes=true"), thresholds={names[0]: 0.5, names[1]: None}) as trainer:
        least = trainer.distill.boxes.least.tolist()
        assert least[0] == 0.5 and least[1] > 1 and trainer.state()["terms"]["boxes.least"].tolist() == least
    given = f"distill.pseudo_boxes={{threshold: {{'{names[1]}': 0.25}}}}"
    with Trainer.open(loaded(given), thresholds={names[0]: 0.5, names[1]: 0.75}) as trainer:
        assert trainer.distill.boxes.least.tolist()[:2] == [0.5, 0.25]
    with pytest.raises(UserError, match="no score for"):
        fit(loaded("distill.pseudo_boxes=true"))
