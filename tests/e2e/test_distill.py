"""From a folder of images in YOLO's form to a taught student and a report with one command, killed in the middle.

A folder in COCO's form goes the same way but for its first step.
"""

import json
import os
import pathlib
import signal
import subprocess
import time

from ppkd.errors import UserError
from ppkd.files.write import alone
from tests.conftest import CONFIGS
from tests.course.test_course import yolo


def begin(python, folder, data):
    pair = [f"--{who}={CONFIGS}/ppyoloe_{size}.yml" for who, size in (("student", "tiny"), ("teacher", "wide"))]
    words = ["distill", str(data), *pair, "--epochs", "1", "--teacher_epochs", "3", "--imgsz", "64"]
    words += ["--waive", "teacher-near-zero,term-too-strong,dead-source,no-gradient,train-eval-normalisation"]
    with open(folder / "log.txt", "a", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [python, "-m", "ppkd", *words]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def taken(folder):
    """Whether a process writes into a folder."""
    try:
        with alone(folder):
            return False
    except UserError:
        return True


def test_one_command_killed_in_the_middle_ends_with_a_taught_student_and_a_report(forks, shapes, tmp_path):
    out = tmp_path / "output" / "distill"
    data = yolo(pathlib.Path(shapes), tmp_path / "yolo")
    process = begin(forks, tmp_path, data)
    while not (out / "teacher" / "0.resume").exists():  # the teacher's first epoch is over
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while taken(out):  # what stood in for Python has gone, what it stood for goes a moment later
        time.sleep(0.1)
    assert begin(forks, tmp_path, data).wait(timeout=580) == 0, (tmp_path / "log.txt").read_text()
    text = (tmp_path / "log.txt").read_text()
    assert text.count("a look at every image and annotation: ppkd doctor") == 1, "done before the kill, and once"
    assert text.count("ppkd data import") == 1 and (out / "data" / "summary.png").exists()
    assert "resuming from" in (out / "log" / "teacher.txt").read_text()
    assert (out / "taught_seed0" / "student" / "model_final.pdparams").exists()
    assert "<html" in (out / "report" / "report.html").read_text()
    assert set(json.loads((out / "checks" / "taught_seed0.json").read_text())) >= {"AP", "AP50"}
    assert "student with the teacher" in text and "next: ppkd infer -c" in text
    state = json.loads((out / "course.json").read_text())
    assert all(part["seconds"] > 0 for part in state["parts"].values())
