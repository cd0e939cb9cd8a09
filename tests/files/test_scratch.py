"""Scratch folders: gone afterwards, and those of killed processes with the next."""

import os
import subprocess
import sys
import time

import pytest

from ppkd.data.shapes import generate
from ppkd.errors import UserError
from ppkd.files.scratch import PREFIX, scratch_folder
from ppkd.files.write import filling
from ppkd.importing.convert import convert

HOLDING = """
import sys
from ppkd.files.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that works in a scratch folder, and the folder's path; it is an hour old."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        folder = process.stdout.readline().strip()
        _age(folder)
        yield process, folder
        process.kill()


def _age(path, seconds=3600):
    os.utime(path, (time.time() - seconds,) * 2)


def test_nothing_is_left_unless_it_has_another_name(tmp_path):
    for name in ("kept", None):
        with scratch_folder(tmp_path) as folder:
            open(os.path.join(folder, "file"), "w").close()
            if name:
                os.rename(folder, tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"] and os.listdir(tmp_path / "kept") == ["file"]


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(holder, tmp_path):
    process, folder = holder
    with scratch_folder(tmp_path):
        assert os.path.isdir(folder)
    process.kill()
    process.wait()
    _age(folder)
    with scratch_folder(tmp_path):
        assert not os.path.exists(folder)


def test_new_ones_links_and_others_are_left_alone(tmp_path):
    (tmp_path / f"{PREFIX}aaaaaaaa").mkdir()  # just made, and its lock not yet taken
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("")
    (tmp_path / f"{PREFIX}bbbbbbbb").symlink_to(tmp_path / "elsewhere")
    for name in (f"{PREFIX}by-hand", "unfinished-cccccccc"):
        (tmp_path / name).mkdir()
        _age(tmp_path / name)
    before = set(os.listdir(tmp_path))
    with scratch_folder(tmp_path):
        pass
    assert set(os.listdir(tmp_path)) == before and os.listdir(tmp_path / "elsewhere") == ["file"]


@pytest.mark.parametrize("how", ["an import", "an export"])
def test_commands_clear_away_after_killed_ones(how, tmp_path):
    left = tmp_path / f"{PREFIX}dddddddd"
    left.mkdir()
    (left / "half.jpg").write_text("")
    _age(left)
    if how == "an import":
        convert(generate(tmp_path / "data", train=2, val=1, size=64), str(tmp_path / "new"))
    else:
        with filling(tmp_path) as folder:
            open(os.path.join(folder, "model.json"), "w").close()
    assert not left.exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    data = generate(tmp_path / "data", train=2, val=1, size=64)
    monkeypatch.setattr("ppkd.files.scratch.tempfile.mkdtemp", full)
    with pytest.raises(UserError, match=r"^--output .*new: cannot be written: .*No space left on device$"):
        convert(data, str(tmp_path / "new"))
