"""The demo's pair on a few images, whole or with one thing wrong."""

import pathlib

import numpy as np
import paddle
import pytest

from ppkd.diagnosis import accuracy
from ppkd.diagnosis.classes import check_classes, judge_names
from ppkd.diagnosis.findings import ERROR, WARNING, Findings
from ppkd.diagnosis.speed import take_batches
from ppkd.diagnosis.step import check_step
from ppkd.diagnosis.subject import build
from ppkd.files.tensor_files import read_weights
from ppkd.recipe.recipe import load_recipe
from ppkd.training.stages import Stages
from tests.conftest import ROOT

STUDENT = str(ROOT / "configs/demo/ppyoloe_plus_student_shapes.yml")
SLIM = str(ROOT / "configs/slim/distill/ppyoloe_plus_shapes_fgd.yml")
TEACHER = str(ROOT / "ppkd/data/teacher_shapes.pdparams")
IMAGES = 8
IMAGENET = "[{NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}, {Permute: {}}]"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The demo's data set, fewer of its images."""
    from ppkd.data.shapes import generate

    return pathlib.Path(generate(tmp_path_factory.mktemp("doctor") / "shapes", train=8, val=12, size=224, seed=0))


@pytest.fixture(scope="session")
def options(data):
    """What the demo's files need here; a batch of two is enough."""
    return [f"dataset_dir={data}", f"teacher.pretrain_weights={TEACHER}", "TrainReader.batch_size=2"]


@pytest.fixture
def weights(tmp_path):
    """Function that changes the shipped teacher's weights, a dict of arrays, and returns the new file's override."""

    def put(change):
        state = read_weights(TEACHER)
        change(state)
        path = str(tmp_path / "changed.pdparams")
        paddle.save(state, path)
        return f"teacher.pretrain_weights={path}"

    return put


@pytest.fixture
def built(options):
    """Function from overrides to a built subject and the findings so far."""

    def make(*overrides):
        findings = Findings()
        return build(load_recipe(STUDENT, SLIM, [*options, *overrides]), findings), findings

    return make


@pytest.fixture
def judged(built, tmp_path, monkeypatch):
    """Function from overrides to the findings about weights, classes and accuracy."""

    def judge(*overrides, other_preparations=False):
        if not other_preparations:  # they take most of the time
            monkeypatch.setattr(accuracy, "other_preparations", lambda config, spec: ())
        subject, findings = built(*overrides)
        known = check_classes(subject, findings)
        folder = tmp_path / "sample"
        folder.mkdir()
        results, scores = accuracy.measure_accuracy(subject, IMAGES, str(folder), findings)
        judge_names(known, scores, subject, findings)
        return findings, results, known

    return judge


@pytest.fixture
def stepped(built):
    """Function from overrides to the findings about one training step, and its rows."""

    def step(*overrides, change=None):
        subject, findings = built(*overrides)
        if change is not None:
            change(subject)
        loader = Stages(subject.recipe.student, 0).loader(0)
        subject.model.enter(0)
        batches, _ = take_batches(loader, 0, 1)
        return findings, check_step(subject, batches[0], findings)

    return step


def the_finding(findings, name):
    (found,) = (item for item in findings.items if item.id == name)
    return found


def grave(findings):
    return findings.ids(ERROR, WARNING)


def shuffled_head(rows):
    """A change of weights after which the head's classes are those of `rows` of the former."""

    def change(state):
        names = [name for name in state if name.startswith("yolo_head.pred_cls")]
        assert len(names) == 6
        for name in names:
            state[name] = state[name][rows]

    return change


def noise(state):
    """In place of weights: numbers of the size of initial ones, statistics as they are made."""
    rng = np.random.RandomState(0)
    for name, value in state.items():
        if name.endswith("_variance"):
            state[name] = np.ones_like(value)
        elif name.endswith("_mean"):
            state[name] = np.zeros_like(value)
        elif value.ndim > 1 and "proj_conv" not in name:
            state[name] = (rng.randn(*value.shape) * np.prod(value.shape[1:]) ** -0.5).astype(value.dtype)
