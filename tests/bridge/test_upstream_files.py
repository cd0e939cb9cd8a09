"""A file that PaddleDetection accepts is accepted here, tags and all; what would run code is refused."""

import os

import pytest

from ppkd.errors import UserError
from ppkd.recipe.recipe import load_recipe
from tests.conftest import CONFIGS
from tests.helpers_tools import write

# As release 2.4 of PaddleDetection writes data sets and schedules.
UPSTREAM = """
_BASE_: ["{base}"]

TrainDataset:
  !COCODataSet
    image_dir: train
    anno_path: annotations/instances_train.json
    dataset_dir: dataset/coco
    data_fields: ['image', 'gt_bbox', 'gt_class', 'is_crowd']

EvalDataset:
  !COCODataSet
    image_dir: val
    anno_path: annotations/instances_val.json
    dataset_dir: dataset/coco

TestDataset:
  !ImageFolder
    anno_path: annotations/instances_val.json

LearningRate:
  base_lr: 0.01
  schedulers:
  - {schedule}
  - !LinearWarmup
    start_factor: 0.1
    steps: 2
"""


@pytest.fixture
def upstream(tmp_path, shapes):
    """Function that loads a file in upstream's style with one more scheduler or line in it."""

    def load(schedule="!PiecewiseDecay\n    gamma: 0.1\n    milestones: [1, 2]", *overrides, more=""):
        text = UPSTREAM.format(base=CONFIGS / "retinanet_tiny.yml", schedule=schedule)
        path = write(tmp_path / "upstream.yml", text + more)
        return load_recipe(path, overrides=[f"dataset_dir={shapes}", *overrides])

    return load


def test_a_file_with_upstreams_tags_loads_and_builds(upstream, shapes):
    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import build_detector, create, scope

    loaded = upstream()
    assert type(build_detector(loaded.student)).__name__ == "RetinaNet"
    with scope(loaded.student):
        assert len(open_dataset("TrainDataset", loaded.student)) == 12
        # One of the six has no box, and upstream's files say nothing of allow_empty.
        assert len(open_dataset("EvalDataset", loaded.student)) == 5
        rates = _rates(create("LearningRate", 4), 10)
        assert create("TestDataset")().get_anno() == os.path.join(shapes, "annotations/instances_val.json")
    assert rates == pytest.approx([0.001, 0.0055] + [0.01] * 2 + [0.001] * 4 + [0.0001] * 2)


def test_upstreams_cosine_schedule_builds(upstream):
    from ppkd.bridge.workspace import create, scope

    with scope(upstream("!CosineDecay\n    max_epochs: 2").student):
        rates = _rates(create("LearningRate", 4), 8)
    assert rates[:3] == pytest.approx([0.001, 0.0055, 0.01])
    assert all(a > b for a, b in zip(rates[2:], rates[3:]))


def _rates(scheduler, count):
    rates = []
    for _ in range(count):
        rates.append(scheduler.get_lr())
        scheduler.step()
    return rates


def test_a_class_that_ppdet_does_not_register_is_refused(upstream):
    from ppkd.bridge.workspace import build_detector

    with pytest.raises(UserError, match=r"upstream\.yml:\d+: unknown tag !PiecewiseDecays; nearest: PiecewiseDecay"):
        build_detector(upstream("!PiecewiseDecays\n    gamma: 0.1").student)
    with pytest.raises(UserError, match=r"upstream\.yml:\d+: !CosineDecay: .*unexpected keyword argument 'epochs'"):
        build_detector(upstream("!CosineDecay\n    epochs: 1").student)


def test_callable_is_refused_and_runs_nothing(upstream, tmp_path):
    """ppdet registers it as a tag: it calls any function that the file names."""
    from ppkd.bridge.workspace import build_detector

    canary = tmp_path / "canary"
    call = f"!Callable {{full_type: os.system, args: ['touch {canary}']}}\n"
    with pytest.raises(UserError, match="EvalReader has to be a mapping without a tag, found !Callable"):
        upstream(more=f"EvalReader: {call}")
    loaded = upstream(more=f"FPN: {call}")
    with pytest.raises(UserError, match=r"upstream\.yml:\d+: a config may not name Callable"):
        build_detector(loaded.student)
    with pytest.raises(UserError, match="the tag !!python/object/apply:os.system is refused"):
        upstream(more=f"EvalReader: !!python/object/apply:os.system ['touch {canary}']\n")
    with pytest.raises(UserError, match="-o:1: the tag !!python/object/apply:os.system is refused"):
        upstream("!CosineDecay", f"epoch=!!python/object/apply:os.system ['touch {canary}']")
    assert not canary.exists()
