"""Records are read whole as they were written, or not at all."""

import os
import shutil

import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.files.records import digest_of, read_record, write_record

SEAL, STAMP = b"this bank", digest_of(b"a view")
ARRAYS = {
    "neck 0": np.arange(24, dtype="float16").reshape(2, 3, 4),
    "big": np.array([1e9], "float32"),
    "bits": np.arange(5, dtype="uint16"),
    "labels": np.array([[-1, 3]], "int64"),
    "none": np.zeros([0, 4], "float32"),
    "a number": np.asarray(3),
    "turned": np.arange(6, dtype="float16").reshape(2, 3).T,
}


@pytest.fixture
def path(tmp_path):
    write_record(tmp_path / "one", ARRAYS, SEAL, STAMP)
    return tmp_path / "one"


def test_what_is_written_is_read(path):
    stamp, found = read_record(path, SEAL)
    assert stamp == STAMP and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert (found[name] == array).all()


def test_no_cut_and_no_flipped_byte_is_read(path):
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        assert read_record(path, SEAL) is None, end
    for place in range(0, len(content), 5):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert read_record(path, SEAL) is None, place
    path.write_bytes(content + b"\0")
    assert read_record(path, SEAL) is None


def test_a_record_of_another_collection_or_no_file_is_none(path, tmp_path):
    assert read_record(path, b"that bank") is None
    assert read_record(tmp_path / "none", SEAL) is None
    assert read_record(tmp_path, SEAL) is None
    os.mkfifo(tmp_path / "fifo")
    assert read_record(tmp_path / "fifo", SEAL) is None


def test_one_that_cannot_be_written_leaves_the_former(path, tmp_path, monkeypatch):
    before = path.read_bytes()
    shutil.copy(path, tmp_path / "two")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="one: cannot be written: No space left on device"):
        write_record(path, {"other": np.zeros(3)}, SEAL, STAMP)
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["one", "two"]
