"""Two ranks evaluate together, to the last digit as one does alone; and each goes on with what it had itself."""

import json
import shutil
from functools import partial

import paddle
import pytest

from ppkd.training import sharing
from ppkd.training.of_ranks import OfRanks
from tests.conftest import CONFIGS, ROOT
from tests.helpers_ranks import on_two_ranks
from tests.helpers_sharing import together
from tests.helpers_training import differing

# Six images: two batches, six, one (so that the second rank has none), and two of which images are broken.
SIZES = {"two": 4, "six": 1, "one": 6, "broken": 2}


@pytest.fixture(scope="module")
def given(tmp_path_factory, shapes, teacher_weights):
    """Run name -> arguments."""
    folder = tmp_path_factory.mktemp("sharing")
    broken = folder / "broken"
    shutil.copytree(shapes, broken)
    images = json.loads((broken / "annotations" / "instances_val.json").read_text())["images"]
    (broken / "val" / images[2]["file_name"]).write_bytes(b"")  # the second rank's first batch
    (broken / "val" / images[4]["file_name"]).unlink()
    config, weights = ROOT / "configs/demo/ppyoloe_plus_teacher_shapes.yml", "ppkd/data/teacher_shapes.pdparams"
    runs = {}
    for name, size in SIZES.items():
        data = broken if name == "broken" else shapes
        overrides = [f"dataset_dir={data}", f"EvalReader.batch_size={size}", "max_bad_images=50%"]
        overrides += [f"pretrain_weights={ROOT / weights}", "eval_size=[96,96]"]
        runs[name] = {"what": "together", "config": str(config), "overrides": overrides}
    overrides = [
        f"dataset_dir={shapes}", f"teacher.pretrain_weights={teacher_weights['resnet']}", "TrainReader.batch_size=3",
        "epoch=2", "distill.loss_weight=10", "distill.update_every=4", "distill.track=4", "snapshot_epoch=9",
    ]  # fmt: skip
    files = {"config": str(CONFIGS / "resnet_tiny.yml"), "slim": str(CONFIGS / "resnet_matching.yml")}
    runs["goes_on"] = {"what": "goes_on", **files, "overrides": overrides, "folder": str(folder)}
    return folder, runs


@pytest.fixture(scope="module")
def finished(given, forks):
    """Run name -> what rank 0 and rank 1 had after it."""
    folder, runs = given
    return on_two_ranks(folder, "tests/helpers_sharing.py", runs, forks)


@pytest.mark.parametrize("name", SIZES)
def test_the_result_is_that_of_one_process_to_the_last_digit(name, finished, given):
    _, runs = given
    alone = together(runs[name]["config"], runs[name]["overrides"], shared=False)
    first, second = finished[name]
    assert first["results"] == second["results"] == alone["results"] and alone["results"]["AP"] > 0
    assert sum(first["seen"]) + sum(second["seen"]) == sum(alone["seen"]) == (4 if name == "broken" else 6)
    assert first["seen"] and bool(second["seen"]) == (name != "one")
    assert first["kept"] and second["kept"], "each rank has its own statistics again"


def test_matching_goes_on_with_what_each_rank_has_seen(finished):
    for rank in finished["goes_on"]:
        assert differing(rank["whole"], rank["parts"]) == []
    first, second = (rank["whole"]["counted"] for rank in finished["goes_on"])
    seen = [name for name in first if name.endswith(".distances")]
    assert seen and any((first[name] != second[name]).any() for name in seen), "the ranks saw the same"


class Counting(paddle.nn.Layer):
    of_rank = ("seen",)

    def __init__(self, seen):
        super().__init__()
        self.register_buffer("seen", paddle.to_tensor([float(seen)]))


@pytest.mark.parametrize(
    "state, rank, ranks, expected",
    [
        ([1.0, 2.0], 0, 2, 1), ([1.0, 2.0], 1, 2, 2), (None, 0, 2, 7), (None, 1, 2, 0), (None, 0, 1, 7),
        ([1.0, 2.0, 4.0], 0, 1, 7), ([1.0, 2.0, 4.0], 0, 2, 5), ([1.0, 2.0], 2, 3, 0),
    ],
)  # fmt: skip
def test_nothing_is_counted_twice_or_lost_where_there_are_other_ranks(state, rank, ranks, expected, monkeypatch):
    """None is of one process, whose layer has it (7 here), or of a file of before, of the first alone."""
    monkeypatch.setattr(paddle.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: ranks)
    layer = paddle.nn.Sequential(Counting(7))
    own = OfRanks(layer)
    own.restore(state and [{"0.seen": paddle.to_tensor([x])} for x in state])
    assert float(layer[0].seen) == expected and OfRanks(None).state() is None


class Metric:
    """As ppdet's for Pascal VOC: it looks into the batch."""

    def __init__(self):
        self.seen = []

    def reset(self):
        self.seen = []

    def update(self, inputs, outputs):
        assert "image" not in inputs and all(isinstance(x, paddle.Tensor) for x in inputs["gt_bbox"])
        self.seen.append((int(inputs["im_id"].numpy()[0]), float(outputs["bbox"].numpy().sum())))

    def accumulate(self):
        self.seen.append("counted")

    def log(self):
        self.seen.append("told")

    def get_results(self):
        return self.seen


def _gathered(found, rank, value):
    found[rank] = value
    return [found[each] for each in sorted(found)]


def test_other_metrics_get_all_batches_in_their_order(monkeypatch):
    found = {}
    for rank in (1, 0):
        monkeypatch.setattr(paddle.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(sharing, "gathered", partial(_gathered, found, rank))
        metric = sharing.SharedMetric(Metric())
        for number in range(rank, 3, 2):
            inputs = {"im_id": paddle.to_tensor([number]), "gt_bbox": [paddle.ones([1, 4])], "image": paddle.ones([1])}
            metric.update(inputs, {"bbox": paddle.full([2], float(number)), "bbox_num": 1})
        metric.accumulate()
        metric.log()
        assert metric.get_results() == ([(0, 0.0), (1, 2.0), (2, 4.0), "counted", "told"] if rank == 0 else None)
