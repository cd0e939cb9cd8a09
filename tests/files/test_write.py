"""A file is there whole or as it was; no link is followed, and only what is our own is cleared away."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys

import pytest

import ppkd
from ppkd.errors import UserError
from ppkd.files import write
from ppkd.recipe.recipe import Recipe
from ppkd.training.runlog import RunLog


def full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_file_as_it_was(step, tmp_path, monkeypatch):
    write.write_text(tmp_path / "a", "before")
    monkeypatch.setattr(step, full)
    with pytest.raises(UserError, match="a: cannot be written: No space left on device"):
        write.write_text(tmp_path / "a", "after")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


def test_a_record_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    real = os.write
    write.append(tmp_path / "a", "one\n")
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:2]) if len(data) > 2 else full())
    with pytest.raises(UserError, match="No space left on device; and more"):
        write.append(tmp_path / "a", "two\n", "; and more")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "one\n"


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for name, target in (("a", "mine"), ("b", "nothing"), ("c", str(tmp_path / "mine"))):
        (tmp_path / name).symlink_to(target)
        write.write_text(tmp_path / name, "new")
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    (tmp_path / "d").symlink_to("mine")
    with pytest.raises(UserError, match="d: cannot be written: it is a link"):
        write.append(tmp_path / "d", "more")
    assert (tmp_path / "mine").read_text() == "precious" and not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("put", [write.write_text, write.append])
@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "open file"])
def test_what_is_no_place_for_a_file_is_refused(kind, put, tmp_path):
    path = tmp_path / "a"
    with open(tmp_path / "open", "w") as file:
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/full" if kind == "device" else f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(UserError, match="a: cannot be written: (there is a folder|it (is no|stands|is a link))"):
            put(path, "text")
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", "open"}


def test_files_of_others_move_when_all_are_written(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="out: cannot be written: No space"), write.filling(out) as folder:
        pathlib.Path(folder, "a").write_text("half")
        full()
    assert not out.exists()
    with pytest.raises(UserError, match="No space"), write.filling(out / "below" / "it"):
        full()
    assert not list(tmp_path.iterdir()), "nothing that was made for it"
    out.mkdir()
    with pytest.raises(UserError, match="No space"), write.filling(out / "below"):
        full()
    assert not list(out.iterdir())
    (out / "a").write_text("former")
    (out / "own").write_text("stays")
    (tmp_path / "mine").write_text("precious")
    (out / "b").symlink_to("../mine")
    with write.filling(out) as folder:
        for name in "ab":
            pathlib.Path(folder, name).write_text("new")
        assert (out / "a").read_text() == "former"
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "new", "b": "new", "own": "stays"}
    assert (tmp_path / "mine").read_text() == "precious"
    with pytest.raises(FileNotFoundError, match="unread"), write.filling(out):
        open(tmp_path / "unread")  # noqa: SIM115


def test_what_others_write_unchecked_onto_a_full_disk_is_not_taken(tmp_path):
    """Whoever does not look at what ``write`` returns goes on with half a file."""
    (tmp_path / "a").write_text("former")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match="cannot be written: File too large"), write.filling(tmp_path) as folder:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            handle = os.open(os.path.join(folder, "a"), os.O_WRONLY | os.O_CREAT)
            assert os.write(handle, b"0" * 300) == 100
            os.close(handle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a").read_text() == "former"


OF_OTHERS = ("notes.tmp2024", "last.resume.tmp7", ".notes.ppkd-mine", "a.ppkd-0123456789ab", ".bashrc")


def test_only_own_leftovers_are_removed(tmp_path):
    for name in OF_OTHERS:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".a.ppkd-0123456789ab").mkdir()
    (tmp_path / ".b.ppkd-0123456789ab").symlink_to("notes.tmp2024")
    killed = f"import os\nfrom ppkd.files import write\nwith write.replacing({str(tmp_path / 'last.resume')!r}) as p:\n"
    killed += f"    open(p, 'w').write('half'); os.kill(os.getpid(), {int(signal.SIGKILL)})"
    root = str(pathlib.Path(ppkd.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", killed], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == -signal.SIGKILL
    before = {path.name for path in tmp_path.iterdir()}
    write.remove_leftovers(tmp_path)
    gone = before - {path.name for path in tmp_path.iterdir()}
    assert len(gone) == 1 and re.fullmatch(r"\.last\.resume\.ppkd-[0-9a-f]{12}", gone.pop())


def test_a_run_writes_through_no_link_of_its_folder(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for name in ("recipe.yml", "metrics.jsonl"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).symlink_to("../mine")
    log = RunLog(str(tmp_path / "out"), Recipe("r", {"epoch": 1}), True)
    log.rewind(-1)
    log.add({"kind": "train", "step": 1})
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == '{"kind": "train", "step": 1}\n'
    assert "epoch: 1" in (tmp_path / "out" / "recipe.yml").read_text()


# Where something else than this module may open a file for writing: the downloads, which go on with what is there;
# what is written in a temporary folder, which moves or goes as a whole; and the kernel's own file.
ELSEWHERE = {
    "files/write.py", "files/download.py", "files/tensor_files.py", "data/shapes.py", "diagnosis/sample.py",
    "diagnosis/speed.py", "bridge/class_names.py", "bridge/compat/onnx_numbers.py",
    "exporting/onnx.py", "demo/demo.py", "importing/convert.py", "importing/summary.py",
}  # fmt: skip


def test_nothing_else_writes_files():
    root = pathlib.Path(ppkd.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"""open\([^)\n]*["'](w|a|x|wb|ab|rb\+|r\+)["']|\.write_(text|bytes)\(|savefig\([a-z]*path""",
                     path.read_text())
    }  # fmt: skip
    assert found <= ELSEWHERE


def test_a_folder_is_filled_by_one_process_at_a_time(tmp_path):
    out = tmp_path / "out"
    with write.filling(out) as scratch:
        pathlib.Path(scratch, "a").write_text("first")
        for _ in range(2):  # the one that was refused leaves the lock to the other
            with pytest.raises(UserError, match="out: wait until it has ended"), write.filling(out):
                pass
        child = os.fork()  # a process that loads, say, and goes on living
        if not child:
            signal.pause()
    try:
        with write.filling(out) as scratch:
            pathlib.Path(scratch, "a").write_text("second")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (out / "a").read_text() == "second" and len(list(out.iterdir())) == 1


def test_a_process_that_was_killed_while_it_filled_a_folder_blocks_nobody(tmp_path):
    child = os.fork()
    if not child:
        with write.filling(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with write.filling(tmp_path) as scratch:
        pathlib.Path(scratch, "a").write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"
