"""A run that is killed, again and again, ends as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import paddle
import pytest

from ppkd.training import checkpoint
from tests.conftest import CONFIGS, ROOT
from tests.helpers_training import QUICK, differing

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def arguments(shapes, teacher_weights):
    """Function from an output folder to the config, slim file and overrides of a run of 12 steps."""

    def make(folder, *overrides, family=QUICK, method="fgd"):
        given = [
            f"dataset_dir={shapes}", f"save_dir={folder}", f"teacher.pretrain_weights={teacher_weights[family]}",
            "TrainReader.batch_size=4", "epoch=4", "snapshot_steps=1", "keep=2", "keep_resume=0", "log_iter=1",
            *overrides,
        ]  # fmt: skip
        return str(CONFIGS / f"{family}_tiny.yml"), str(CONFIGS / f"{family}_{method}.yml"), given

    return make


def records(run):
    text = (run / "metrics.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    clocks = ("seconds", "images_per_second", "memory")
    return [{k: v for k, v in record.items() if not any(word in k for word in clocks)} for record in found]


def contents(run):
    """Name -> content of all checkpoints of a run; fails if one cannot be read."""
    found = {path.name: paddle.load(str(path)) for path in run.glob("*.pdparams")}
    return found | {path.name: checkpoint.load(str(path)) for path in run.glob("*.resume")}


KILLED = {
    # family, method: kills, overrides
    (QUICK, "fgd"): (10, ["worker_num=2"]),
    # Updates begin at steps 0, 4 and 8 and look at three batches each.
    ("resnet", "matching"): (4, ["distill.update_every=4", "distill.update_until=12", "distill.track=3"]),
}


@pytest.mark.parametrize("family, method", KILLED)
def test_many_kills_leave_no_trace(family, method, arguments, forks, tmp_path):
    kills, overrides = KILLED[family, method]
    for name, number in (("whole", 0), ("killed", kills)):
        given = arguments(tmp_path / name, *overrides, family=family, method=method)
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
        script = ROOT / "tests" / "helpers_interrupted.py"
        done = subprocess.run(
            [forks, str(script), str(tmp_path / f"{name}.json"), str(number), "0"],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    hit = int(done.stdout.split("inside of a write: ")[1])
    assert hit >= 2, "too few of the kills hit a write to tell anything"
    runs = [tmp_path / name / f"{family}_tiny" for name in ("whole", "killed")]
    whole, killed = map(contents, runs)
    assert set(killed) == set(whole) == {
        "2.pdparams", "2.resume", "1.pdparams", "1.resume", "last.pdparams", "last.resume", "best_model.pdparams",
        "model_final.pdparams", "model_final.resume",
    }  # fmt: skip
    for name, content in whole.items():
        assert differing(killed[name], content) == [] or name.endswith(".resume"), name
    for key in ("student", "terms", "optimizer", "ema", "epoch", "batch", "step", "best"):
        assert differing({key: killed["model_final.resume"][key]}, {key: whole["model_final.resume"][key]}) == [], key
    assert records(runs[1]) == records(runs[0]), "every step is recorded once"
    left = {path.name for path in runs[1].iterdir()}
    names = {path.replace(".pdparams", ".names.yml") for path in killed if path.endswith(".pdparams")}
    assert left == set(killed) | names | {"metrics.jsonl", "recipe.yml", ".ppkd.lock"}


def wait_for(condition, process, seconds=120):
    limit = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()[-3000:] if process.stderr else process.returncode
        assert time.time() < limit, "waited too long"
        time.sleep(0.05)


def steps_done(folder):
    path = folder / f"{QUICK}_tiny" / "metrics.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_itself(number, arguments, forks, tmp_path):
    config, slim, given = arguments(tmp_path / "out", "snapshot_steps=0", "epoch=50", "snapshot_epoch=50")
    python = sys.executable if number == signal.SIGTERM else forks
    command = [python, str(ROOT / "tools" / "train.py"), "-c", config, "--slim_config", slim]
    with subprocess.Popen(
        [*command, "-o", *given], env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: steps_done(tmp_path / "out") >= 2, process)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; go on with -r {tmp_path}" in error and "Traceback" not in error
    state = checkpoint.load(str(tmp_path / "out" / f"{QUICK}_tiny" / "last"))
    assert state["step"] == steps_done(tmp_path / "out") >= 2
    assert state["batch"] > 0 or state["epoch"] > 0


def launch(folder, arguments, *more):
    config, slim, given = arguments
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command += ["--log_dir", str(folder / "log")]
    command += [str(ROOT / "tools" / "train.py"), "-c", config, "--slim_config", slim, *more, "-o", *given]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def workers(process):
    """Process numbers of a launcher's two ranks."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(n) for n in children if b"tools/train.py" in pathlib.Path(f"/proc/{n}/cmdline").read_bytes()]


def test_one_of_two_ranks_that_dies_ends_both_and_the_run_goes_on_as_it_was(arguments, tmp_path):
    results = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        given = arguments(folder / "out", "TrainReader.batch_size=2")
        if name == "killed":
            with launch(folder, given) as process:
                wait_for(lambda folder=folder: steps_done(folder / "out") >= 4, process)
                both = workers(process)
                assert len(both) == 2
                os.kill(both[1], signal.SIGKILL)
                process.communicate(timeout=60)
            assert process.returncode != 0, "the launcher took the death of a rank for an end"
            assert not [number for number in both if os.path.exists(f"/proc/{number}")], "the other rank still waits"
            assert steps_done(folder / "out") < 12
        with launch(folder, given, "-r", "auto") as process:
            output = process.communicate(timeout=200)[0]
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in (folder / "log").glob("workerlog.*"))
        assert process.returncode == 0, output[-1000:] + logs
        results[name] = paddle.load(str(folder / "out" / f"{QUICK}_tiny" / "model_final.resume"))
    for part in ("student", "terms"):
        for key, value in results["whole"][part].items():
            assert float((results["killed"][part][key] - value).abs().max()) <= 1e-6, key
    assert results["killed"]["step"] == results["whole"]["step"] == 12
