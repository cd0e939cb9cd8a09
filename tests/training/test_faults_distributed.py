"""Two ranks of which one meets bad images or NaN: they take, and skip, the same steps, and neither waits for ever."""

import json
import shutil

import numpy as np
import pytest

from tests.conftest import CONFIGS
from tests.helpers_ranks import on_two_ranks
from tests.helpers_training import QUICK, differing

# With a term that is brought to a share of the loss, whose size both ranks exchange in every step.
METHOD = "maps"
RUNS = {
    "bad": (["max_bad_images=50%"], {}),
    "nan": (["on_nonfinite=skip"], {"nan_rank": 1}),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shapes, teacher_weights, forks):
    """Run name -> what rank 0 and rank 1 had after it."""
    folder = tmp_path_factory.mktemp("faults")
    broken = folder / "broken"
    shutil.copytree(shapes, broken)
    names = json.loads((broken / "annotations" / "instances_train.json").read_text())["images"]
    for image in names[3:6]:  # in order, three a batch: all of rank 1's first
        (broken / "train" / image["file_name"]).write_bytes(b"")
    runs = {}
    for name, (overrides, options) in RUNS.items():
        given = [
            f"dataset_dir={broken if name == 'bad' else shapes}", f"save_dir={folder / name}", "epoch=1",
            f"teacher.pretrain_weights={teacher_weights[QUICK]}", "TrainReader.batch_size=3",
            "TrainReader.shuffle=false", "log_iter=100", *overrides,
        ]  # fmt: skip
        files = {"config": str(CONFIGS / f"{QUICK}_tiny.yml"), "slim": str(CONFIGS / f"{QUICK}_{METHOD}.yml")}
        runs[name] = {**files, "overrides": given, **options}
    return on_two_ranks(folder, "tests/helpers_faults.py", runs, forks)


@pytest.mark.parametrize("name", RUNS)
def test_both_ranks_end_alike(name, finished):
    first, second = finished[name]
    assert first["steps"] == second["steps"] == 2
    assert differing(first["before"], second["before"]) == []
    assert differing(first["after"], second["after"]) == []
    assert differing(first["before"], first["after"]), "nothing was trained"
    assert all(np.isfinite(value.numpy()).all() for value in first["after"].values())


def test_a_batch_of_bad_images_on_one_rank(finished):
    first, second = finished["bad"]
    assert first["bad"] == [] and len(second["bad"]) == 3
    assert first["skipped"] == second["skipped"] == 0


def test_a_nan_on_one_rank_is_skipped_on_both(finished):
    assert [rank["skipped"] for rank in finished["nan"]] == [1, 1]
