"""What is opened is a file: a FIFO, socket, device or folder is refused in a line, and never waited for."""

import importlib
import os
import pathlib
import signal
import socket

import pytest

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.datasets import check_files, open_dataset
from ppkd.bridge.images import BadImage, decode, fault, read
from ppkd.bridge.workspace import import_ppdet, scope
from ppkd.errors import UserError
from ppkd.files.locate import find_weights
from ppkd.files.regular import NotAFile, open_file
from ppkd.files.tensor_files import read_tensors
from ppkd.files.torch_files import read_torch
from ppkd.files.yaml_io import Tagged, read_with_bases, read_yaml
from ppkd.study.runs import Run
from ppkd.training.checkpoint import load
from ppkd.training.inference import find_images
from ppkd.training.records import read_records

import_ppdet()  # before anything is timed


@pytest.fixture(autouse=True)
def _no_waiting():
    """A read that waits would wait for ever."""

    def raise_it(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path):
    os.mkfifo(path)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def link_to_a_device(path):
    path.symlink_to("/dev/zero")


def link_to_a_fifo(path):
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


KINDS = {
    fifo: "FIFO", bound_socket: "socket", link_to_a_device: "device", link_to_a_fifo: "FIFO", os.mkdir: "folder"
}  # fmt: skip
READERS = {
    "a.yml": read_yaml, "a.json": lambda path: read_annotations(path, ("images",)), "a.pdparams": read_tensors,
    "a.safetensors": read_tensors, "a.pth": read_torch, "a.jpg": read, "metrics.jsonl": read_records,
    "b.jpg": decode,
}  # fmt: skip


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused(name, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make((tmp_path / name).relative_to(tmp_path))
    with pytest.raises((UserError, BadImage), match=f"{name}.* is a .*{KINDS[make]}.*, not a file"):
        READERS[name](name)


@pytest.mark.parametrize("start", [b"", b"\xff\xd8 and so on"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_of_holes_is_not_read_into_memory(name, start, tmp_path, monkeypatch):
    monkeypatch.setattr("ppkd.files.regular._LARGE", 1 << 20)  # and not a file that could take all memory
    path = tmp_path / name
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(1 << 26)
    with pytest.raises((UserError, BadImage), match="is a sparse file that claims 67 MB"):
        READERS[name](str(path))


def test_a_large_file_that_is_full_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ppkd.files.regular._LARGE", 1000)
    (tmp_path / "a").write_bytes(b"x" * 5000)
    with open_file(tmp_path / "a", "rb") as file:
        assert file.read() == b"x" * 5000


def test_an_empty_file_is_a_file(tmp_path):
    (tmp_path / "a").touch()
    with open_file(tmp_path / "a") as file:
        assert file.read() == ""


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    for name in "ab":
        with open_file(tmp_path / name, "rb") as file:
            assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "c")


def test_what_becomes_a_fifo_behind_the_check_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a")
    monkeypatch.setattr("ppkd.files.regular.check_file", lambda path: None)
    with pytest.raises(NotAFile, match="FIFO"):
        open_file(tmp_path / "a")


@pytest.mark.parametrize(
    "broken, message",
    [("annotations.json", "annotation file .* is a .*FIFO"), ("classes.txt", "list of classes .* is a .*FIFO"),
     ("images", "the image folder .* is a file, not a folder")],
)  # fmt: skip
def test_files_that_ppdet_opens_itself_are_looked_at_before(broken, message, tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("annotations.json", "classes.txt"):
        (tmp_path / name).write_text("{}")
    given = {"dataset_dir": str(tmp_path), "image_dir": "images", "anno_path": "annotations.json"}
    config = {"TrainDataset": {**given, "name": "COCODataSet", "label_list": "classes.txt"}}
    check_files("TrainDataset", config)
    if broken == "images":
        (tmp_path / broken).rmdir()
        (tmp_path / broken).touch()
    else:
        (tmp_path / broken).unlink()
        os.mkfifo(tmp_path / broken)
    with pytest.raises(UserError, match=message):
        check_files("TrainDataset", config)


def test_a_fifo_among_images_to_detect_on_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    (found,) = find_images(None, str(tmp_path))
    assert "is a named pipe" in fault(found)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("module", ["ppdet.data.source.widerface", "ppdet.data.source.keypoint_coco"])
def test_ppdet_opens_files_alone(module, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = importlib.import_module(module).open
    make(pathlib.Path("a.txt"))
    with pytest.raises(UserError, match=f"a.txt: is a .*{KINDS[make]}.*, not a file"):
        opened("a.txt", "r")
    (tmp_path / "b.txt").write_text("content")
    with opened("b.txt") as file, opened("c.txt", "w", encoding="utf-8") as other:
        other.write(file.read())
    assert (tmp_path / "c.txt").read_text() == "content"


def _voc(folder):
    (folder / "classes.txt").write_text("cat\n")
    (folder / "train.txt").write_text("a.jpg a.xml\n")
    given = {"dataset_dir": str(folder), "image_dir": "", "anno_path": "train.txt", "label_list": "classes.txt"}
    return Tagged("VOCDataSet", given)


def _keypoints(folder):
    (folder / "a.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}')
    given = {"dataset_dir": str(folder), "image_dir": "", "anno_path": "a.json", "num_joints": 1, "trainsize": [8, 8]}
    return Tagged("KeypointTopDownCocoDataset", given | {"bbox_file": "a.xml", "use_gt_bbox": False})


@pytest.mark.parametrize("section", [_voc, _keypoints])
@pytest.mark.parametrize("make", [fifo, link_to_a_device], ids=lambda make: make.__name__)
def test_files_that_a_data_set_opens_when_it_is_read_are_files(section, make, tmp_path):
    config = {"TrainDataset": section(tmp_path), "num_classes": 1}
    make(tmp_path / "a.xml")
    config["allow_outside"] = True
    with pytest.raises(UserError, match=r"a\.xml: is a .*, not a file"), scope(config):
        open_dataset("TrainDataset", config)


@pytest.mark.parametrize("make, told", [(os.mkfifo, r"named pipe \(FIFO\)"), (os.mkdir, "a folder")])
@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors", ".pth", ""])
def test_weights_that_are_no_file_are_told_what_they_are(make, told, suffix, tmp_path):
    make(tmp_path / f"weights{suffix}")
    with pytest.raises(UserError, match=told):
        find_weights(str(tmp_path / f"weights{suffix}"), "weights")


@pytest.mark.parametrize("make, told", [(os.mkfifo, r"named pipe \(FIFO\)"), (os.mkdir, "a folder")])
def test_bases_resume_files_and_records_that_are_no_files_are_told_what_they_are(make, told, tmp_path):
    make(tmp_path / "base.yml")
    (tmp_path / "own.yml").write_text("_BASE_: [base.yml]\n")
    make(tmp_path / "last.resume")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / "recipe.yml")
    tries = [
        lambda: read_with_bases(str(tmp_path / "own.yml")), lambda: load(str(tmp_path / "last.resume")),
        lambda: Run(str(tmp_path / "run")),
    ]  # fmt: skip
    for attempt in tries:
        with pytest.raises(UserError, match=told):
            attempt()
