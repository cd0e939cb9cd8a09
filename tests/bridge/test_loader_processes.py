"""Loading processes end with their parent, and their own end is one line (compat/loader_processes.py)."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from ppkd.bridge.compat import loader_processes
from ppkd.bridge.compat.loader_processes import lost_processes_are_told
from ppkd.errors import UserError
from ppkd.training.loader import _end
from tests.conftest import CONFIGS, ROOT

# Loads with two processes, of which it tells the numbers; then waits in a step, or ends as a second SIGTERM lets it.
LOADING = """
import ppkd, os, sys, time
import paddle
from ppkd.bridge.compat import loader_processes
how, cured = sys.argv[1:]
if cured == "watched":
    loader_processes._told_by_the_system, loader_processes._SECONDS = lambda: False, 0.1
if cured != "plain":
    loader_processes.end_loading_processes_with_their_parent()
class Endless(paddle.io.Dataset):
    def __len__(self): return 10**6
    def __getitem__(self, i): return i
batches = iter(paddle.io.DataLoader(Endless(), batch_size=2, num_workers=2))
next(batches)
print(*[worker.pid for worker in batches._workers], flush=True)
if how == "exit":
    os._exit(143)
time.sleep(1000)
"""


def running(number):
    try:
        return " Z " not in pathlib.Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False


def left_after(how, cured, seconds):
    """Loading processes that are there so many seconds after their parent has gone."""
    command = [sys.executable, "-c", LOADING, how, cured]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    silent = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **silent) as parent:
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert len(workers) == 2
        if how != "exit":
            parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        limit = time.time() + seconds
        while any(map(running, workers)) and time.time() < limit:
            time.sleep(0.05)
        left = [number for number in workers if running(number)]
        for number in left:
            os.kill(number, signal.SIGKILL)
        return left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize("how, cured", [("kill", "cured"), ("exit", "cured"), ("kill", "watched")])
def test_loading_processes_end_with_their_parent(how, cured):
    assert left_after(how, cured, 10) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_without_the_cure_they_stay():
    """Once this fails, Paddle has been mended and the cure can go."""
    assert left_after("kill", "plain", 3) != []


@pytest.mark.parametrize(
    "text, told",
    [
        ("(Fatal) DataLoader process (pid   77) exited is killed by signal: Killed. (at dl.cc:1)",
         r"process \(77\) was ended by a signal: Killed\. If the machine's memory"),
        ("(Fatal) DataLoader process (pid 8) exited is killed by signal: Bus error.\n  It", "Bus error. If /dev/shm"),
    ],
)  # fmt: skip
def test_a_killed_one_is_told(text, told):
    with pytest.raises(UserError, match=told), lost_processes_are_told():
        raise SystemError(text)
    with pytest.raises(SystemError, match="another"), lost_processes_are_told():
        raise SystemError("another")


def test_the_cure_is_applied_once(monkeypatch):
    from paddle.io.dataloader import dataloader_iter

    monkeypatch.setattr(dataloader_iter, "_worker_loop", lambda: None)
    loader_processes.end_loading_processes_with_their_parent()
    first = dataloader_iter._worker_loop
    loader_processes.end_loading_processes_with_their_parent()
    assert dataloader_iter._worker_loop is first


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_run_that_lost_one_goes_on_as_if_it_had_not(shapes, tmp_path):
    """To the bit, from the last step that was saved."""
    given = [f"dataset_dir={shapes}", "worker_num=2", "epoch=2", "snapshot_steps=1", "log_iter=1", "keep=1"]
    (tmp_path / "given.json").write_text(json.dumps([str(CONFIGS / "retinanet_tiny.yml"), str(tmp_path), given]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers_lost_worker.py"), str(tmp_path / "given.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "was ended by a signal: Killed" in found["ended"] and "a training goes on with -r auto" in found["ended"]
    assert found["saved"] == 4 and found["differing"] == []


def test_a_queue_that_a_lost_process_has_ended_is_a_line():
    error = SystemError("(Fatal) Blocking queue is killed because the data reader raises an exception.")
    with pytest.raises(UserError, match="a loading process failed or was ended; .*-r auto"), lost_processes_are_told():
        raise error


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_processes_that_are_lost_while_loading_ends_print_nothing(lost):
    """Paddle raises wherever the program is: in a generator that is closed, Python printed it behind the one line."""
    left, done = [lost], []

    def shut_down():
        if left[0]:
            left[0] -= 1
            raise SystemError("(Fatal) DataLoader process (pid 7) exited is killed by signal: Killed.")
        done.append(True)

    nothing = SimpleNamespace(set=lambda: None, close=lambda: None, join=lambda timeout: None)
    _end(SimpleNamespace(_thread_done_event=nothing, _blocking_queue=nothing, _thread=nothing,
                         _try_shutdown_all=shut_down))  # fmt: skip
    assert done == [True]
