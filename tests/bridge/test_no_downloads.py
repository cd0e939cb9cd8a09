"""What is missing is told, and never fetched by ppdet or Paddle (compat/no_downloads.py)."""

import shutil

import pytest
import requests

from ppkd.bridge.workspace import import_ppdet
from ppkd.errors import UserError
from ppkd.training.evaluation import evaluate

import_ppdet()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def send(*_, **__):
        raise AssertionError("something was asked of the network")

    monkeypatch.setattr(requests.Session, "send", send)


@pytest.mark.parametrize("name", ["coco", "voc", "mine"])
@pytest.mark.parametrize("gone", ["", "annotations.json", "images"])
def test_a_data_set_is_not_fetched(name, gone, tmp_path):
    from ppdet.data.source.coco import COCODataSet

    folder = tmp_path / name
    (folder / "images").mkdir(parents=True)
    (folder / "annotations.json").touch()
    dataset = COCODataSet(str(folder), "images", "annotations.json")
    dataset.check_or_download_dataset()
    shutil.rmtree(folder / gone) if not gone or gone == "images" else (folder / gone).unlink()
    with pytest.raises(UserError, match=f"no .* at {folder}.*{gone}"):
        dataset.check_or_download_dataset()


def test_weights_are_not_fetched(tmp_path):
    from paddle.utils.download import get_path_from_url
    from ppdet.utils.download import get_path

    url = "https://paddledet.bj.bcebos.com/models/pretrained/nothing.pdparams"
    with pytest.raises(UserError, match=f"{url} would be downloaded, which is off"):
        get_path(url, str(tmp_path))
    with pytest.raises(UserError, match=f"{url} would be downloaded, which is off"):
        get_path_from_url(url, str(tmp_path))


@pytest.mark.parametrize("gone", ["annotations/instances_val.json", "val", "val/*"])
def test_validation_data_that_vanish_in_a_run_are_named(gone, recipe, shapes, tmp_path):
    from ppkd.bridge.workspace import scope
    from ppkd.build import build_student

    coco = tmp_path / "coco"  # a name for which ppdet has an address
    shutil.copytree(shapes, coco)
    loaded = recipe("ppyoloe", distil=False, overrides=[f"dataset_dir={coco}"])
    model = build_student(loaded, load=False)
    for path in coco.glob(gone):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with scope(loaded.student) as table, pytest.raises(UserError, match="no .* at .*coco|images there"):
        evaluate(model, table)
