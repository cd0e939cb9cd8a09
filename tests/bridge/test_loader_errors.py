"""A broken training image ends the run with its name, instead of hanging it (compat/loader_errors.py)."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from ppkd.errors import UserError
from ppkd.training.trainer import Trainer
from tests.conftest import ROOT


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers, recipe, shapes, tmp_path):
    broken = tmp_path / "shapes"
    shutil.copytree(shapes, broken)
    names = json.loads((broken / "annotations" / "instances_train.json").read_text())["images"]
    for image in names:
        (broken / "train" / pathlib.Path(image["file_name"]).name).write_bytes(b"no picture")
    loaded = recipe("retinanet", distil=False, overrides=[f"dataset_dir={broken}", f"worker_num={workers}"])
    message = "of 12 training images cannot be read or transformed, .*jpg: not an image"
    with pytest.raises(UserError, match=message), Trainer.open(loaded) as run:
        run.run()


def test_without_the_patch_paddle_hangs():
    """Once this fails, Paddle has been mended and compat/loader_errors.py can go."""
    lines = [
        "import ppkd, paddle",
        "class Broken(paddle.io.Dataset):",
        "    def __len__(self): return 4",
        "    def __getitem__(self, i): raise ValueError('broken')",
        "next(iter(paddle.io.DataLoader(Broken(), num_workers=0)))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, timeout=15, check=False)
