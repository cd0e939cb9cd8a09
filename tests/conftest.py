"""Shared fixtures: a tiny data set, tiny detectors, teacher weights, and a way to run a tool as a user does."""

# ruff: noqa: I001
import functools
import gc
import os
import pathlib
import random
import subprocess
import sys

import ppkd  # noqa: F401  # before paddle
import numpy as np
import paddle
import pytest

from ppkd.files import yaml_io
from tests.helpers_forks import Forks

# An error that nobody foresaw is shown as it is, not as the one line that users get.
os.environ["PPKD_TRACEBACK"] = "1"

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "tests" / "configs"
SHARED = ROOT.parent / "shared"
FAMILIES = ("retinanet", "ppyoloe")

_read_yaml = yaml_io.read_yaml


@functools.cache
def _read_once(path, folder):
    return _read_yaml(path)


def _read_yaml_of_ours_once(path):
    """As `yaml_io.read_yaml`; the configs here, which no test changes, are parsed once."""
    ours = os.path.abspath(path).startswith((f"{ROOT}/configs/", f"{CONFIGS}/"))
    return yaml_io.clone(_read_once(str(path), os.getcwd())) if ours else _read_yaml(path)


yaml_io.read_yaml = _read_yaml_of_ours_once


def pytest_collection_finish(session):
    """What is there by now stays to the end: no garbage collection has to look at it again, as every full one did."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _models_are_let_go():
    """Models are circles of layers and hooks, and large: not one of a file outlives it."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Folder of a generated data set: 12 training and 6 validation images of 64 pixels."""
    from ppkd.data.shapes import generate

    return generate(tmp_path_factory.mktemp("data") / "shapes", train=12, val=6, size=64, seed=0)


@pytest.fixture(scope="session")
def teacher_weights(tmp_path_factory, shapes):
    """Family -> path of (random, but fixed) weights for its wide teacher, made when first asked for."""
    from ppkd.build import build_student
    from ppkd.recipe.recipe import load_recipe

    class Paths(dict):
        def __missing__(self, family):
            state = paddle.get_rng_state()
            paddle.seed(7)
            config = str(CONFIGS / f"{family}_wide.yml")
            model = enliven(build_student(load_recipe(config, overrides=[f"dataset_dir={shapes}"])))
            self[family] = str(tmp_path_factory.mktemp("weights") / f"{family}_wide.pdparams")
            paddle.save(model.state_dict(), self[family])
            paddle.set_rng_state(state)
            return self[family]

    return Paths()


@pytest.fixture
def recipe(shapes, teacher_weights, tmp_path):
    """Function that loads a recipe of a family: ``recipe("retinanet", "fgd", overrides=[...])``.

    The method names a slim file of `CONFIGS`, or else a ``slim_method``, for which a file is written; with
    ``distil=False`` there is none. The teacher is the wide one of the family, or of another that is named.
    """
    from ppkd.recipe.recipe import load_recipe
    from tests.helpers_hosts import renamed

    def load(family, method="fgd", distil=True, overrides=(), teacher=None):
        given, slim = [f"dataset_dir={shapes}", f"save_dir={tmp_path}", *renamed(family)], None
        teacher = teacher or family
        if distil:
            given.append(f"teacher.pretrain_weights={teacher_weights[teacher]}")
            slim = CONFIGS / f"{teacher}_{method}.yml"
            if not slim.exists():
                slim = tmp_path / slim.name
                slim.write_text(f"_BASE_: [{CONFIGS}/{teacher}_wide.yml]\nslim: Distill\nslim_method: {method}\n")
        return load_recipe(str(CONFIGS / f"{family}_tiny.yml"), slim and str(slim), [*given, *overrides])

    return load


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Path of what runs Python's scripts and modules as Python does, by `helpers_forks`."""
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks.python()
    forks.close()


@pytest.fixture
def run_tool(tmp_path, forks):
    """Function that runs ``tools/NAME.py ARGS`` in an empty folder, as a user would.

    With ``new=True`` Python itself is started. Returns the finished process with ``returncode``, ``stdout`` and
    ``stderr``.
    """

    def run(name, *args, timeout=300, new=False):
        command = [sys.executable if new else forks, str(ROOT / "tools" / f"{name}.py"), *map(str, args)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)


def enliven(model, *parts):
    """Add noise to parts of a model and return it.

    The default part is the head, which as ppdet builds it gives next to the same logits everywhere.
    """
    from ppkd.detectors import detector_for

    for part in parts or [detector_for(model).head]:
        for name, parameter in part.named_parameters():
            if not name.endswith(("_mean", "_variance")) and "proj_conv" not in name:
                parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    return model


def training_batch(loaded, epoch=0):
    """The first training batch of a recipe, as the trainer would see it."""
    from ppkd.bridge.datasets import open_dataset
    from ppkd.training.loader import TrainLoader
    from ppkd.bridge.workspace import create, scope

    with scope(loaded.student):
        loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", loaded.student), 0, seed=0)
        batch = next(loader.epoch(epoch))
    batch["epoch_id"] = epoch
    return batch
