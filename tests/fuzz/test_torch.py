"""Files of PyTorch of any content: plain values and tensors, or a UserError; nothing runs, nothing of ours changes."""

import contextlib
import pathlib
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from ppkd.errors import UserError
from ppkd.files import torch_files
from ppkd.files.torch_files import Tensor, read_torch
from tests.fuzz.inputs import inputs
from tests.fuzz.test_weights import ARGUMENTS, STACK, changed_bytes, short
from tests.helpers_torch import Call, save_torch

NAMES = [tuple(name.rsplit(".", 1)) for name in [*torch_files._KNOWN, *torch_files._STOOD_IN_FOR]] + [
    ("torch", "FloatStorage"), ("torch", "BFloat16Storage"), ("torch", "load"), ("posix", "system"), ("os", "system"),
    ("builtins", "exec"), ("builtins", "object"), ("copyreg", "_reconstructor"),
]  # fmt: skip
CALLS = st.sampled_from(NAMES).map(lambda pair: short(pair[0]) + short(pair[1]) + b"\x93")
STORAGE = b"(" + short("storage") + short("torch") + short("FloatStorage") + b"\x93" + short("0") + short("cpu")
STORAGE += b"K\x04tQ"
TENSOR = short("torch._utils") + short("_rebuild_tensor_v2") + b"\x93(" + STORAGE
TENSOR += b"K\x00K\x02K\x02\x86K\x02K\x01\x86tR"
PROGRAMS = st.lists(st.one_of(ARGUMENTS, CALLS, STACK, st.just(STORAGE), st.just(TENSOR), STACK), max_size=40)


def state():
    """What a file could reach and must not change."""
    functions = (torch_files._tensor, torch_files._parameter)
    changed = [(f.__defaults__, f.__kwdefaults__, dict(vars(f))) for f in functions]
    return changed, dict(vars(torch_files._Inert)), dict(vars(Tensor)), dict(torch_files._KNOWN)


BEFORE = state()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sound and malicious files of both formats, as bytes."""
    folder = tmp_path_factory.mktemp("torch")
    sound = {"a": np.ones((2, 3), "f4"), "b": np.arange(4), "epoch": 3, "c": ["x", None, 1.5]}
    contents = [sound, {"a": Call("posix", "system", "touch canary"), "b": np.ones(2, "f4")}]
    paths = [save_torch(c, folder / f"{i}{old}", old) for i, c in enumerate(contents) for old in (False, True)]
    return [pathlib.Path(path).read_bytes() for path in paths]


def check(value):
    if isinstance(value, Tensor):
        with contextlib.suppress(UserError):  # fewer numbers than it says
            assert value.numpy().shape == value.shape
    elif isinstance(value, dict):
        for part in [*value.keys(), *value.values()]:
            check(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            check(part)
    else:
        ours = (torch_files.Call, torch_files._Inert, torch_files._Storage)
        assert isinstance(value, (str, bytes, bytearray, int, float, bool, type(None), *ours, type)), type(value)


def read(path, quiet):
    try:
        with quiet():
            check(read_torch(str(path)))
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
    except RecursionError:
        pass  # the check's own, of a container that holds itself
    assert state() == BEFORE


def test_torchs_files(files, tmp_path_factory, quiet):
    path = tmp_path_factory.mktemp("fuzz") / "x.pth"

    @inputs(changed_bytes(files))
    def run(content):
        path.write_bytes(content)
        read(path, quiet)

    run()


def test_torchs_programs(tmp_path_factory, quiet):
    path = tmp_path_factory.mktemp("fuzz") / "x.pth"

    @inputs(PROGRAMS, st.integers(0, 20))
    def run(parts, length):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x04" + b"".join(parts) + b".")
            archive.writestr("archive/data/0", bytes(length))
        read(path, quiet)

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + TENSOR + b".")
        archive.writestr("archive/data/0", np.arange(4, dtype="f4").tobytes())
    assert read_torch(str(path)).numpy().tolist() == [[0, 1], [2, 3]]
    run()
