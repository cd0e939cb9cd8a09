"""Files of ``torch.save`` are read without PyTorch, and whatever a file names beside tensors is not called."""

import os
import pickle
import shutil
import struct
import zipfile

import numpy as np
import pytest

from ppkd.errors import UserError
from ppkd.files.torch_files import Tensor, is_torch_file, read_torch
from tests.helpers_torch import Call, Global, Storage, save_torch, tensor

formats = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "model.pth")


def bfloat16(array):
    return Storage((array.view("u4") >> 16).astype("u2"), "BFloat16Storage")


@formats
def test_tensors_of_every_type_come_back(path, legacy):
    random = np.random.RandomState(0)
    arrays = {kind: random.randn(3, 4).astype(kind) for kind in ("f4", "f8", "f2")}
    arrays |= {"i8": np.arange(6).reshape(2, 3), "scalar": np.array(7), "none": np.zeros((0, 3), "f4")}
    arrays["flags"] = random.rand(5) > 0.5
    short = random.randn(4).astype("f4").view("u4") // 65536 * 65536
    short = short.astype("u4").view("f4")
    save_torch({**arrays, "short": tensor(short, bfloat16(short))}, path, legacy)
    assert is_torch_file(path)
    found = read_torch(path)
    for name, array in {**arrays, "short": short}.items():
        assert found[name].shape == array.shape
        assert found[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(found[name].numpy(), array)


@formats
def test_tensors_that_share_numbers_and_views_of_them(path, legacy):
    base = np.arange(12, dtype="f4")
    shared = Storage(base)
    content = {
        "whole": tensor(base, shared), "rows": tensor(base.reshape(3, 4)[1:], shared, 4),
        "turned": tensor(base, shared, 0, (1, 4), (4, 3)), "spread": tensor(base, shared, 2, (0, 1), (2, 2)),
    }  # fmt: skip
    save_torch(content, path, legacy)
    found = {name: value.numpy() for name, value in read_torch(path).items()}
    np.testing.assert_array_equal(found["whole"], base)
    np.testing.assert_array_equal(found["rows"], base.reshape(3, 4)[1:])
    np.testing.assert_array_equal(found["turned"], base.reshape(3, 4).T)
    np.testing.assert_array_equal(found["spread"], [[2, 3], [2, 3]])


def test_parameters_and_plain_values(path):
    content = {"a": Call("torch._utils", "_rebuild_parameter", tensor(np.ones(2, "f4")), True, None)}
    save_torch({**content, "epoch": 3, "names": ["x", ("y", 1.5)], "deep": {"b": tensor(np.zeros(1, "f4"))}}, path)
    found = read_torch(path)
    assert isinstance(found["a"], Tensor) and found["a"].shape == (2,)
    assert found["epoch"] == 3 and found["names"] == ["x", ("y", 1.5)]
    assert found["deep"]["b"].numpy() == 0


@formats
def test_what_training_tools_leave_behind_is_stood_in_for(path, legacy):
    history = Global("mmengine.logging.history_buffer", "HistoryBuffer")
    log = {
        "made": Call("mmengine.logging.history_buffer", "HistoryBuffer", [1.0], 5),
        "bound": Call("__builtin__", "getattr", history, "mean"),
        "number": Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f8", 0, 1), "x" * 8),
    }
    save_torch({"log": log, "a": np.ones(3, "f4")}, path, legacy)
    found = read_torch(path)
    np.testing.assert_array_equal(found["a"].numpy(), np.ones(3))
    assert not any(callable(value) or isinstance(value, np.generic) for value in found["log"].values())


# What a hostile file may ask for.
HOSTILE = {
    "posix.system": lambda canary: Call("posix", "system", f"touch {canary}"),
    "os.system": lambda canary: Call("os", "system", f"touch {canary}"),
    "builtins.eval": lambda canary: Call("builtins", "eval", f"open({str(canary)!r}, 'w')"),
    "builtins.exec": lambda canary: Call("builtins", "exec", f"open({str(canary)!r}, 'w')"),
    "shutil.copy": lambda canary: Call("shutil", "copy", __file__, str(canary)),
    "subprocess.Popen": lambda canary: Call("subprocess", "Popen", ["touch", str(canary)]),
    "builtins.__import__": lambda canary: Call("builtins", "__import__", "os"),
    "torch.load": lambda canary: Call("torch", "load", str(canary)),
    "torch._utils._rebuild_device_tensor_from_numpy": (
        lambda canary: Call("torch._utils", "_rebuild_device_tensor_from_numpy", 1)
    ),
    "collections.OrderedDict.__init__": lambda canary: Global("collections", "OrderedDict.__init__"),
    "numpy.core.multiarray.fromfile": lambda canary: Call("numpy.core.multiarray", "fromfile", str(canary)),
    "mmengine.logging.history_buffer.os": lambda canary: Global("mmengine.logging.history_buffer", "os"),
}


@formats
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_calls_anything_else_is_refused_by_name_and_runs_nothing(tmp_path, name, legacy):
    canary, path = tmp_path / "canary", str(tmp_path / "model.pth")
    save_torch({"a": np.ones(2, "f4"), "b": HOSTILE[name](canary)}, path, legacy)
    with pytest.raises(UserError, match=f"model.pth: it calls {name}, which tensors do not need, so it is not opened"):
        read_torch(path)
    assert not canary.exists()


def test_the_canary_would_have_been_left(tmp_path):
    """That the files above are what they say: plain unpickling runs them."""
    canary, path = tmp_path / "canary", str(tmp_path / "model.pth")
    save_torch({"b": HOSTILE["os.system"](canary)}, path)
    with zipfile.ZipFile(path) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert canary.exists()


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter"])
def test_a_function_cannot_be_changed(tmp_path, name):
    """A pickle may set attributes of what it names: such as the defaults of a function, for all later files."""
    program = b"\x80\x02ctorch._utils\n" + name.encode() + b"\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    path = str(tmp_path / "model.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(UserError, match="it changes a function, which tensors do not need"):
        read_torch(path)


STATE = b"}" + b"X\x05\x00\x00\x00shape" + b"M\x00\x10\x85s"
CHANGES = {
    "its attributes": STATE + b"b",
    "its slots": b"N" + STATE + b"\x86b",
    "its strides": b"N}X\x08\x00\x00\x00_stridesJ\xff\xff\xff\xff\x85s\x86b",
    "the numbers": b"}X\x05\x00\x00\x00countM\x00\x10sb",
    "the numbers' slots": b"N}X\x07\x00\x00\x00_valuesNs\x86b",
}


def _program(change):
    """A pickle of a tensor of four numbers that changes the tensor, or the storage before that is used."""
    early = change if b"count" in change or b"_values" in change else b""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    made = b"(" + storage + early + b"K\x00K\x04\x85K\x01\x85\x89}tR"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + made + (b"" if early else change) + b"s."


def _archive(path, program, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", np.arange(4, dtype="f4").tobytes())
        for name, (content, compression) in entries.items():
            archive.writestr(f"archive/{name}", content, compression)


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_checked_cannot_be_changed(path, name):
    """A tensor whose shape, strides or numbers grow after the check reads memory that is not the file's."""
    _archive(path, _program(b""))
    assert read_torch(path)["a"].numpy().tolist() == [0, 1, 2, 3]
    _archive(path, _program(CHANGES[name]))
    with pytest.raises(UserError, match="it changes (a tensor|the numbers of tensors), which tensors do not need"):
        read_torch(path)


def test_a_tensor_is_checked_again_when_it_is_read(path):
    _archive(path, _program(b""))
    found = read_torch(path)["a"]
    found.shape = (4096,)
    with pytest.raises(UserError, match=r"shape \[4096\] lies outside of its 4 stored numbers"):
        found.numpy()


def test_small_entries_do_not_unfold(path):
    """Every entry, and all of them together, is as large in the file as it says."""
    _archive(path, _program(b""), byteorder=(bytes(1 << 22), zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="its entries come to more bytes|byteorder is compressed"):
        read_torch(path)
    _archive(path, _program(b""), byteorder=(os.urandom(64), zipfile.ZIP_LZMA))
    with pytest.raises(UserError, match="archive/byteorder is compressed, as torch.save leaves none"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", _program(b""))
        archive.writestr("archive/data/0", bytes(4096))
        first = archive.getinfo("archive/data/0")
        for number in range(1, 9):  # all in the place of the first
            other = zipfile.ZipInfo(f"archive/data/{number}")
            for field in ("header_offset", "CRC", "file_size", "compress_size"):
                setattr(other, field, getattr(first, field))
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    with pytest.raises(UserError, match="its entries come to more bytes than the file has"):
        read_torch(path)


def test_many_tensors_of_the_same_numbers_take_no_more_memory(path):
    base = np.arange(1000, dtype="f4")
    shared = Storage(base)
    save_torch({str(i): tensor(base, shared) for i in range(50)}, path)
    arrays = [value.numpy() for value in read_torch(path).values()]
    assert len({array.__array_interface__["data"][0] for array in arrays}) == 1


@formats
def test_getattr_reaches_nothing(tmp_path, legacy):
    """Stood in for, it cannot be used to get from a harmless object to another."""
    canary, path = tmp_path / "canary", str(tmp_path / "model.pth")
    reach = Call("builtins", "getattr", Global("collections", "OrderedDict"), "__init__")
    save_torch({"a": reach, "b": Call("builtins", "getattr", reach, "__globals__")}, path, legacy)
    found = read_torch(path)
    assert {type(value).__name__ for value in found.values()} == {"_Inert"}
    assert not canary.exists()


@formats
@pytest.mark.parametrize(
    "offset, strides, shape",
    [
        (0, (1,), (13,)),
        (1, (1,), (12,)),
        (0, (5, 1), (3, 4)),
        (0, (-1,), (4,)),
        (-4, (1,), (4,)),
        (0, (1,), (2, 2)),
        (0, (2**40,), (2**30,)),
        (0, (0,), (2**40,)),
    ],
)
def test_a_tensor_cannot_reach_beyond_its_numbers(path, offset, strides, shape, legacy):
    base = np.arange(12, dtype="f4")
    save_torch({"a": tensor(base, Storage(base), offset, strides, shape)}, path, legacy)
    with pytest.raises(UserError, match="lies outside of its 12 stored numbers|sizes of a tensor have to be whole"):
        read_torch(path)


def test_a_storage_that_ends_early(tmp_path, path):
    base = np.arange(12, dtype="f4")
    storage = Storage(base)
    storage.bytes = storage.bytes[:40]
    save_torch({"a": tensor(base, storage)}, path)
    with pytest.raises(UserError, match="48 bytes of a tensor were expected, 40 are there"):
        read_torch(path)["a"].numpy()
    legacy = tmp_path / "legacy.pth"
    save_torch({"a": base}, legacy, legacy=True)
    legacy.write_bytes(legacy.read_bytes()[:-8])
    with pytest.raises(UserError, match="48 bytes of a tensor were expected, 40 are there"):
        read_torch(str(legacy))["a"].numpy()


def test_an_archive_that_lacks_numbers_or_has_others(path):
    save_torch({"a": np.arange(12, dtype="f4"), "b": np.ones(2, "f4")}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if name != "archive/data/0":
                archive.writestr(name, content)
    with pytest.raises(UserError, match="it lacks archive/data/0, which its tensors refer to"):
        read_torch(path)["a"].numpy()
    save_torch({"a": np.arange(12, dtype="f4")}, path)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content.replace(np.float32(7).tobytes(), np.float32(8).tobytes()))
    with pytest.raises(UserError, match="its entry archive/data/0 is damaged: .*Bad CRC-32"):
        read_torch(path)["a"].numpy()


def test_a_compressed_archive_is_refused(path):
    save_torch({"a": np.zeros(1000, "f4")}, path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="its entry archive/data.pkl is compressed, as torch.save leaves none"):
        read_torch(path)


def test_other_files_are_told_from_it(tmp_path):
    assert not is_torch_file(__file__)
    other = tmp_path / "other.zip"
    shutil.make_archive(str(tmp_path / "other"), "zip", os.path.dirname(os.path.dirname(__file__)), "configs")
    with pytest.raises(UserError, match="a zip archive, but none of torch.save: no data.pkl in it, only configs/"):
        read_torch(str(other))
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"")
    with pytest.raises(UserError, match="a TorchScript archive: a program with weights"):
        read_torch(str(script))


@formats
def test_a_damaged_file_says_so(path, legacy):
    save_torch({"a": np.arange(400, dtype="f4")}, path, legacy)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content[: len(content) // 20])
    with pytest.raises(UserError, match="model.pth: not a file that PyTorch saved, or a damaged one"):
        read_torch(path)


def test_storages_that_do_not_match_their_tensors(path):
    save_torch({"a": np.arange(4, dtype="f4")}, path, legacy=True)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(content.replace(struct.pack("<q", 4) + np.float32(0).tobytes(), struct.pack("<q", 5) + b"\0" * 4))
    with pytest.raises(UserError, match="its storage 0 is not the one that its tensors refer to"):
        read_torch(path)
