"""What the last lines of commands propose is what helps: the next command, a threshold that shows something."""

import os
import shlex
from types import SimpleNamespace

import pytest

from ppkd.bridge.host import place_of_ppdet
from ppkd.cli import infer_parser
from ppkd.commands import using
from ppkd.commands.common import infer_command
from ppkd.terminal.log import logger
from ppkd.training.inference import Detection


def test_what_the_run_said_of_the_detector_is_taken_along_and_what_it_said_of_training_is_not():
    of_detector = ["imgsz=96", "width_mult=0.5", "PPYOLOEHead.nms={keep_top_k: 50}", "class_names=[a b,c]"]
    of_training = ["epochs=4", "batch=4", "save_dir=pat", "dataset_dir=shapes", "patience=1", "pretrain_weights=p"]
    of_training += ["TrainReader.batch_size=4", "teacher.x=t", "second.width_mult=1", "distill.loss_weight=0"]
    told = infer_command("my student.yml", "my runs/w.pdparams", [*of_training, *of_detector], ("teacher", "second"))
    ppkd, infer, *words = shlex.split(told)
    assert (ppkd, infer) == ("ppkd", "infer")
    args = infer_parser().parse_args(words)
    assert args.config == "my student.yml" and args.infer_dir == "FOLDER"
    assert args.opt == ["weights=my runs/w.pdparams", *of_detector]


def test_in_a_clones_own_folder_python_is_what_finds_it(monkeypatch):
    monkeypatch.chdir(os.path.dirname(place_of_ppdet()))
    assert infer_command("a.yml", "w.pdparams").startswith("python -m ppkd infer -c a.yml ")


@pytest.mark.parametrize("best", [0.98, 0.5, 0.021, 0.02, 0.0199, 0.011, 0.0099, 0.0031, 0.0005])
def test_a_threshold_that_is_proposed_shows_some(best, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    args = SimpleNamespace(draw_threshold=0.99, visualize=False, save_results=False)
    using._tell_whole({"a.jpg": [Detection("car", 0, best, None)]}, 1, args)
    words = caplog.messages[-1].split()
    assert 0 < float(words[words.index("--draw_threshold") + 1]) < best


@pytest.mark.parametrize("score, told", [(0.9, "image written to out"), (0.3, "image written to out, without a box")])
def test_pictures_without_a_box_are_told_as_such(score, told, caplog, monkeypatch):
    monkeypatch.setattr(logger(), "propagate", True)
    args = SimpleNamespace(draw_threshold=0.5, visualize=True, save_results=False, output_dir="out")
    using._tell_whole({"a.jpg": [Detection("car", 0, score, None)]}, 1, args)
    assert caplog.messages[-1] == f"1 {told}"
