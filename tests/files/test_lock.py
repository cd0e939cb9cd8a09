"""Two runs do not write into one folder; a lock goes with its owner, however that ends."""

import os
import signal
import subprocess
import sys

import pytest

from ppkd.errors import UserError
from ppkd.files import lock
from ppkd.files.lock import FILE, held_alone
from ppkd.terminal.log import logger
from ppkd.training.trainer import Trainer
from tests.conftest import ROOT
from tests.helpers_training import FOUR, QUICK

# Holds a folder, says so, and forks a process that outlives it.
OWNER = """
import os, sys, time
from ppkd.files.lock import held_alone
with held_alone(sys.argv[1]):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(1000)
"""


def owner(folder):
    command = [sys.executable, "-c", OWNER, str(folder)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_holds_nothing_though_what_it_forked_lives(how, tmp_path):
    with owner(tmp_path / "out") as first:
        child = int(first.stdout.readline())
        told = rf"another run \(process {first.pid} on .*\) is writing .*save_dir="
        with pytest.raises(UserError, match=told), held_alone(tmp_path / "out"):
            pass
        first.send_signal(how)
        first.wait(30)
        os.kill(child, 0)
        with held_alone(str(tmp_path / "out")):
            assert f"process {os.getpid()} on" in (tmp_path / "out" / FILE).read_text()
        os.kill(child, signal.SIGKILL)
    with held_alone(tmp_path / "out"):
        pass


def test_the_file_alone_holds_nothing_and_is_no_way_elsewhere(tmp_path):
    (tmp_path / FILE).write_text("process 1 on this machine")
    with held_alone(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / FILE).symlink_to("mine")
    with pytest.raises(UserError, match="not writable"), held_alone(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(UserError, match="is no file"), held_alone(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "precious" and not lock._held


@pytest.mark.parametrize("there", [(), ("deep",), ("deep/out", "deep/out/notes.txt")])
def test_a_block_that_fails_leaves_what_was_there(there, tmp_path):
    for name in there:
        (tmp_path / name).touch() if name.endswith(".txt") else (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), held_alone(tmp_path / "deep" / "out"):
        raise ZeroDivisionError
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - {f"deep/out/{FILE}"}
    assert found == {"deep", *there} - (set() if there else {"deep"})
    with pytest.raises(ZeroDivisionError), held_alone(tmp_path / "new"):
        (tmp_path / "new" / "result").touch()
        raise ZeroDivisionError
    assert (tmp_path / "new" / "result").exists()


def test_without_locks_the_run_goes_on_and_tells(tmp_path, monkeypatch, caplog):
    def unknown(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unknown)
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    with held_alone(tmp_path):
        assert "knows no locks" in caplog.text


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_second_run_is_refused_while_the_first_lives(resume, recipe):
    loaded = recipe(QUICK, distil=False, overrides=[FOUR])
    with Trainer.open(loaded, max_steps=1) as first:
        there = [entry.name for entry in os.scandir(loaded.output_dir)]
        with pytest.raises(UserError, match="another run"), Trainer.open(loaded, resume=resume):
            pass
        assert [entry.name for entry in os.scandir(loaded.output_dir)] == there
        first.run()
    with Trainer.open(loaded, resume=resume, max_steps=2):
        pass
    with pytest.raises(UserError, match="no resume file"), Trainer.open(loaded, resume="nowhere"):
        pass
    with Trainer.open(loaded, resume=resume, max_steps=2):  # one that failed to begin holds nothing either
        pass


@pytest.mark.parametrize("other", ["link/run", "real/../real/run", "real//run/."])
def test_another_spelling_of_a_folder_is_that_folder(other, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with (
        held_alone(str(tmp_path / "real" / "run")),
        pytest.raises(UserError, match="another run"),
        held_alone(os.path.join(tmp_path, other)),
    ):
        pass
