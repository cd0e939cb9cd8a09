"""The published recipe, by name, on a machine that has neither COCO, nor a network, nor a GPU."""

import re

import paddle
import pytest

from tests.conftest import ROOT
from tests.helpers_tools import OFFLINE, the_error

PUBLISHED = [
    "-c", ROOT / "configs/retinanet/retinanet_r50_fpn_2x_coco.yml",
    "--slim_config", ROOT / "configs/slim/distill/retinanet_resnet101_coco_distill.yml",
]  # fmt: skip
no_gpu = pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle may find a GPU")


def warnings(log):
    """The lines of a log that are warnings."""
    return re.findall(r"^[\d:]+ W (.*)$", log, flags=re.MULTILINE)


def is_the_gpu_warning(found):
    return len(found) == 1 and found[0].startswith("use_gpu: true, but Paddle finds no GPU; going on with the CPU")


@no_gpu
def test_the_published_recipe_without_coco(run_tool):
    done = run_tool("train", *PUBLISHED)
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        r"TrainDataset: no data set folder at dataset/coco \(that is /.*dataset/coco\), which has to hold "
        r"train2017 and annotations/instances_train2017\.json\. .*train2017\.zip, val2017\.zip and "
        r"annotations_trainval2017\.zip.*https://cocodataset\.org \(20 GB\).*-o dataset_dir=/path/to/coco",
        message,
    )
    assert is_the_gpu_warning(warnings(done.stdout))


@no_gpu
def test_the_published_recipe_without_network(run_tool, shapes, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    data = [f"dataset_dir={shapes}", "image_dir=train", "anno_path=annotations/instances_train.json"]
    done = run_tool("train", *PUBLISHED, "-o", *(f"TrainDataset.{one}" for one in data))
    message = the_error(done.returncode, done.stderr)
    assert re.match(
        r"student weights \(pretrain_weights\): https://\S*ResNet50_cos_pretrained\.pdparams could not be downloaded "
        r"\(ProxyError\)\. Is there a network\?.*give the file's path instead$",
        message,
    )
    assert is_the_gpu_warning(warnings(done.stdout))
