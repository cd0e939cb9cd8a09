"""The tools beside distillation: help, plain training, evaluation, inference on a folder, one's own data."""

import json
import os
import signal
import subprocess
import sys
import time

import paddle
import pytest

from ppkd import cli
from tests.conftest import CONFIGS, ROOT
from tests.helpers_hosts import cured, on_a_clone
from tests.helpers_tools import OFFLINE, the_error

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
STUDENT = CONFIGS / "retinanet_tiny.yml"


@pytest.mark.parametrize("name", TOOLS)
def test_help_is_quick_because_it_imports_no_paddle(name):
    script = ROOT / "tools" / f"{name}.py"
    slow = ["paddle", "ppdet", "cv2", "matplotlib"]
    if "cli.run(" in script.read_text(encoding="utf-8"):  # then it does nothing but to run a command
        slow += ["numpy", "yaml", "ppkd.commands"]
    lines = [
        "import runpy, sys",
        f"sys.argv = [{name!r}, '--help']",
        "try:",
        f"    runpy.run_path({str(script)!r}, run_name='__main__')",
        "except SystemExit as stop:",
        "    assert not stop.code, stop.code",
        f"assert not set({slow}) & set(sys.modules)",
    ]
    begin = time.time()
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ") and "show this help message" in done.stdout
    assert time.time() - begin < 5


@pytest.mark.parametrize(
    "arguments, message", [([], "required: -c/--config"), (["-c", "a.yml", "--max_steps", "0"], "at least 1")]
)
def test_wrong_arguments_show_the_usage(run_tool, arguments, message):
    done = run_tool("train", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ") and message in done.stderr


def test_plain_training_then_inference_on_a_folder(run_tool, shapes, tmp_path):
    data = f"dataset_dir={shapes}"
    trained = run_tool("train", "-c", STUDENT, "--max_steps", 2, "--use_vdl", "--vdl_log_dir", "curves", "-o", data)
    assert trained.returncode == 0, trained.stderr
    run = tmp_path / "output" / "retinanet_tiny"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert not [key for key in records[0] if "." in key], "no term of a method"
    assert {path.name for path in run.iterdir()} == {
        "metrics.jsonl", "recipe.yml", "model_final.pdparams", "model_final.names.yml", "model_final.resume",
        ".ppkd.lock",
    }  # fmt: skip
    assert len(losses_in(tmp_path / "curves")) == 2

    done = run_tool("infer", "-c", STUDENT, "--infer_dir", tmp_path / shapes / "val", "--output_dir", "drawn",
                    "--draw_threshold", "0.0", "--save_results", "--use_vdl", "-o", data,
                    f"weights={run / 'model_final'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / shapes / "val").glob("*.jpg")}
    assert {path.name for path in (tmp_path / "drawn").glob("*.jpg")} == names and len(names) == 6
    boxes = json.loads((tmp_path / "drawn" / "bbox.json").read_text())
    assert boxes and {len(box["bbox"]) for box in boxes} == {4}
    assert list((tmp_path / "vdl_log_dir" / "image").glob("vdlrecords*.log"))


def losses_in(folder):
    """The values of ``train/loss`` in a VisualDL log."""
    from visualdl import LogReader

    (path,) = folder.glob("vdlrecords*.log")
    return LogReader(file_path=str(path)).get_data("scalar", "train/loss")


def test_drawing_needs_pillows_old_method():
    """As the wheel does; clones are mended. Once this fails ppkd.bridge.compat.pillow_textsize can go."""
    import inspect

    needed = cured("give_textsize_back")
    from ppdet.utils import visualizer

    assert ("draw.textsize(" in inspect.getsource(visualizer.draw_bbox)) == needed or on_a_clone()


def test_evaluation_by_url_without_a_network(run_tool, shapes, monkeypatch, tmp_path):
    for name, value in {**OFFLINE, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    url = "https://paddledet.bj.bcebos.com/models/retinanet_r50_fpn_2x_coco.pdparams"
    done = run_tool("eval", "-c", STUDENT, "-o", f"dataset_dir={shapes}", f"weights={url}")
    message = the_error(done.returncode, done.stderr)
    assert message.startswith(f"weights: {url} could not be downloaded")
    assert message.endswith("download it elsewhere and give the file's path instead")


def test_the_custom_student_on_ones_own_data(run_tool, shapes, tmp_path):
    config = ROOT / "configs" / "custom" / "ppyoloe_plus_tiny_custom.yml"
    done = run_tool("train", "-c", config, "--max_steps", 1, "-o", f"dataset_dir={shapes}", "train_images=train",
                    "val_images=val", "TrainReader.batch_size=2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights = paddle.load(str(tmp_path / "output" / "ppyoloe_plus_tiny_custom" / "model_final.pdparams"))
    assert weights["yolo_head.pred_cls.0.weight"].shape[0] == 6, "the classes of the annotations"


def test_the_console_command_lists_its_commands_and_runs_one(shapes, tmp_path):
    def run(*args):
        command = [sys.executable, "-m", "ppkd", *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    listed = run()
    assert listed.returncode == 0 and all(f"  {name} " in listed.stdout for name in cli.COMMANDS)
    wrong = run("trian")
    assert (wrong.returncode, wrong.stderr) == (1, "ppkd: error: unknown command 'trian'; nearest: train\n")
    files = ["-c", CONFIGS / "gfl_tiny.yml", "--slim_config", CONFIGS / "gfl_ld.yml"]
    explained = run("explain", *files, "-o", f"dataset_dir={shapes}")
    assert explained.returncode == 0, explained.stderr
    assert explained.stdout.startswith("# ") and "head.box_dist[3]" in explained.stdout


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["configs"]])
def test_who_reads_the_list_need_not_read_to_its_end(args):
    """`ppkd --help | head -1` ended with a traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ppkd", *args]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
