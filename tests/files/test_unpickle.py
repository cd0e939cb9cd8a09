"""The restricted unpickler: Paddle's own files pass, everything else is refused by its name and runs nothing."""

import contextlib
import json
import os
import pathlib
import pickle
import struct
import tracemalloc

import numpy as np
import paddle
import pytest

from ppkd.errors import UserError
from ppkd.files import unpickle
from ppkd.files.tensor_files import read_tensors, read_weights, write_tensors
from tests import helpers_malicious

FILES = pathlib.Path(__file__).parent / "paddle_files"


@pytest.mark.parametrize("name", helpers_malicious.weights("x"))
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, name):
    canary, path = tmp_path / "canary", tmp_path / "w.pdparams"
    path.write_bytes(helpers_malicious.weights(canary)[name])
    with pytest.raises(UserError, match=rf"^{path}: ") as caught:
        read_weights(str(path))
    assert not canary.exists()
    if name not in ("persistent id", "extension"):  # of which pickle itself knows nothing
        assert isinstance(caught.value, unpickle.Refused), caught.value


@pytest.mark.parametrize(
    "name, told",
    [
        ("os.system", r"it calls posix\.system, which tensors do not need, so it is not opened"),
        ("exec", r"it calls __builtin__\.exec"),
        ("eval", r"it calls builtins\.eval"),
        ("eval with data", r"it calls builtins\.eval"),
        ("numpy.load", r"it calls numpy\.load"),
        ("object array", r"it holds numpy\.dtype 'O\d?'"),
        ("flags that make bytes addresses", r"it holds numpy\.dtype 'O'"),
        ("another class", r"it calls numpy\.matrix"),
        ("another encoding", r"it calls _codecs\.encode with 'zip'"),
    ],
)
def test_what_is_refused_is_named(tmp_path, name, told):
    with pytest.raises(unpickle.Refused, match=rf"^w\.pdparams: {told}"):
        unpickle.loads(helpers_malicious.weights(tmp_path / "canary")[name], "w.pdparams")


@pytest.mark.parametrize("name", ["os.system", "exec", "eval", "in an object array", "pickle in pickle"])
def test_paddle_itself_runs_these_files(tmp_path, name):
    """So these checks are needed: a Paddle that refuses would make them, and `unpickle`, superfluous."""
    canary, path = tmp_path / "canary", tmp_path / "w.pdparams"
    path.write_bytes(helpers_malicious.weights(canary)[name])
    with contextlib.suppress(ValueError):  # that what it has run gave no tensor
        paddle.load(str(path))
    assert canary.exists()


def test_a_file_changes_nothing_for_the_next(tmp_path):
    """Attributes that a pickle sets on what it has named are refused, and files read after it as before it."""
    good = pickle.dumps({"a": np.arange(3, dtype="f4")}, 2)
    for evil in helpers_malicious.opcodes(tmp_path / "canary").values():
        with pytest.raises(UserError):
            unpickle.loads(evil)
        assert unpickle.loads(good)["a"].tolist() == [0, 1, 2]


def same(a, b):
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(b, "shape"):
        return str(a.dtype) == str(b.dtype) and type(a) is type(b) and np.array_equal(np.asarray(a), np.asarray(b))
    return type(a) is type(b) and a == b


@pytest.fixture(scope="module")
def states():
    """What Paddle saves: a state, an optimizer's, both in a nested one, and a static graph's tensor."""
    model = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 1), paddle.nn.BatchNorm2D(4))
    rate = paddle.optimizer.lr.LinearWarmup(paddle.optimizer.lr.CosineAnnealingDecay(0.1, 9), 2, 0.0, 0.1)
    optimizer = paddle.optimizer.AdamW(learning_rate=rate, parameters=model.parameters(), multi_precision=True)
    model(paddle.ones([1, 3, 4, 4])).sum().backward()
    optimizer.step()
    rate.step()
    arrays = {name: np.zeros((2, 1), name) for name in ("float16", "float64", "uint8", "int64", "bool", "complex64")}
    arrays |= {"scalar": np.float32(2), "none": np.ones(()), "empty": np.ones((0, 3)), "big": np.ones(3, ">f4")}
    arrays["columns"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    mixed = {"epoch": 1, "list": [1, (2, None), "x", 0.5], "student": model.state_dict(), "arrays": arrays}
    return {"weights": model.state_dict(), "optimizer": optimizer.state_dict(), "arrays": arrays,
            "mixed": mixed | {"optimizer": optimizer.state_dict()}}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", ["weights", "optimizer", "mixed", "arrays"])
def test_what_paddle_saves_is_read_as_paddle_reads_it(states, tmp_path, name, protocol):
    path = str(tmp_path / "x")
    paddle.save(states[name], path, protocol=protocol)
    assert same(read_tensors(path), paddle.load(path, return_numpy=True))
    assert same(read_tensors(path, keep_tensors=True), paddle.load(path))


def test_tensors_keep_their_names(states, tmp_path):
    paddle.save(states["mixed"], str(tmp_path / "x"))
    found = read_tensors(tmp_path / "x", keep_tensors=True)["student"]
    assert {k: v.name for k, v in found.items()} == {k: v.name for k, v in states["weights"].items()}


def test_a_static_graphs_tensor_is_read_although_its_pickle_calls_eval(tmp_path):
    core = paddle.base.core
    tensor = (core.LoDTensor if hasattr(core, "LoDTensor") else core.DenseTensor)()
    tensor.set(np.ones((2, 2), "float32"), paddle.CPUPlace())
    paddle.save({"x": tensor, "y": [tensor]}, str(tmp_path / "x"))
    assert b"eval" in (tmp_path / "x").read_bytes()
    assert read_tensors(tmp_path / "x")["x"].tolist() == [[1, 1], [1, 1]]


def test_a_large_tensor_in_pieces_is_put_together(tmp_path):
    """As ``paddle.save`` writes one of more than a gibibyte with protocols 2 and 3."""
    pieces = {"w@@.0": np.arange(4.0), "w@@.1": np.arange(4.0, 6.0), "b": np.ones(1)}
    cut = {"w": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}}
    (tmp_path / "x").write_bytes(pickle.dumps({**pieces, "UnpackBigParamInfor@@": cut}, 2))
    found = read_tensors(tmp_path / "x")
    assert found["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and sorted(found) == ["b", "w"]


@pytest.mark.parametrize("path", sorted(FILES.glob("*.pd*")), ids=lambda path: path.name)
def test_files_of_both_paddle_versions_are_read(path):
    """Written with Paddle 2.6.2 and 3.3.1 by tests/files/paddle_files/make.py."""
    kind = path.stem.split("_")[0]
    found = read_tensors(path)
    if kind == "nested":
        assert found["epoch"] == 3 and found["best"] == 0.5 and found["names"] == ["a", ("b", None)]
        assert found["deep"]["student"]["0.weight"].shape == (3, 2)
        found = found["deep"]["optimizer"]
        kind = "optimizer"
    if kind == "optimizer":
        assert found["LR_Scheduler"]["last_epoch"] == 1
        moments = [k for k in found if "moment1" in k]
        assert len(moments) == 4 and all(found[k].dtype == np.float32 for k in moments)
        assert sum(abs(found[k]).sum() for k in moments) > 0.01
    else:
        assert {k: v.shape for k, v in found.items()} == {
            "0.weight": (3, 2), "0.bias": (2,), "1.weight": (2,), "1.bias": (2,), "1._mean": (2,), "1._variance": (2,),
        }  # fmt: skip
        assert np.allclose(found["0.weight"], np.arange(6).reshape(3, 2))


def test_there_are_files_of_both_versions():
    assert {path.stem.split("_")[1] for path in FILES.glob("*.pd*")} == {"2.6.2", "3.3.1"}


def test_containers_that_hold_themselves_are_refused():
    circle = []
    circle.append(circle)
    with pytest.raises(UserError, match="a container that holds itself"):
        unpickle.loads(pickle.dumps({"a": circle}, 2))


def test_what_stands_in_many_places_is_made_once():
    """Thirty lists, each of the one before twice: walked one by one they would be a thousand million."""
    inner = [1]
    for _ in range(30):
        inner = [inner, inner]
    found = unpickle.loads(pickle.dumps({"a": inner}, 2))
    assert found["a"][0] is found["a"][1]


def test_deep_nesting_is_an_error_and_no_crash():
    with pytest.raises(UserError, match="damaged"):
        unpickle.loads(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")


@pytest.mark.parametrize("shape", ["(-1, 2)", "(2, 2)", "(1 << 62, 4)", "(2.0,)", "[2]"])
def test_an_array_whose_shape_is_a_lie(shape):
    """NumPy would read what stands behind the array's bytes, or take memory for it."""
    kind, args, state = np.ones(2, "float32").__reduce__()
    fake = helpers_malicious.Calls(kind, *args)
    fake._call = (kind, args, (1, eval(shape), *state[2:]))
    with pytest.raises(UserError, match="an array"):
        unpickle.loads(pickle.dumps({"a": fake}, 2))


def test_python_2_wrote_texts_for_bytes():
    """A file of Paddle 1 under Python 2: the array's bytes are a text of latin1."""
    raw = np.array([1.5, -2], "float32").tobytes()
    written = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbs."
    )
    assert unpickle.loads(written)["a"].tolist() == [1.5, -2]


GROWING = {
    "an array's bytes over and over": (
        b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"q\x02T\x00\x00\x04\x00" + bytes(1 << 18) + b"q\x030000"
        + b"h\x00h\x01K\x00\x85U\x01b\x87R(K\x01J\x00\x00\x04\x00\x85h\x02\x89h\x03tba" * 200 + b"."
    ),
    "a text made bytes over and over": (
        b"\x80\x02]c_codecs\nencode\nq\x000X\x00\x00\x04\x00" + b"a" * (1 << 18) + b"q\x010"
        + b"h\x00h\x01U\x06latin1\x86Ra" * 200 + b"."
    ),
    "a tuple of a long list": b"\x80\x02]q\x00(" + b"N" * 9999 + b"e("
    + b"c__builtin__\ntuple\nh\x00\x85R" * 99 + b"l.",
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_what_unfolds_to_many_times_its_size_is_refused(name):
    with pytest.raises(unpickle.Refused, match="it unfolds to many times its own size"):
        unpickle.loads(GROWING[name])


@pytest.mark.parametrize("code", [b"\x96", b"\x8e", b"\x8d", b"\x95"])
def test_a_size_beyond_the_end_takes_no_memory(code):
    """BYTEARRAY8 makes room first, for as much as the file says."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="a damaged one .EOFError: it ends early"):
            unpickle.loads(b"\x80\x05" + code + struct.pack("<Q", 1 << 33) + b"abc.")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_tuples_of_the_same_tuples_are_no_key():
    """The hash of each is made of all below it, anew for every use: of 60 it takes longer than anyone waits."""
    doubled = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    with pytest.raises(unpickle.Refused, match="a tuple of more than 100000 parts"):
        unpickle.loads(b"\x80\x02}K\x01\x85" + doubled + b"Ns.")


# safetensors


def test_safetensors_are_written_and_read(tmp_path, states):
    arrays = {k: np.asarray(v) for k, v in states["weights"].items()}
    arrays |= {k: states["arrays"][k] for k in ("float16", "float64", "uint8", "int64", "bool", "columns", "none")}
    write_tensors(tmp_path / "w.safetensors", arrays | states["weights"], ".safetensors")
    found = read_weights(str(tmp_path / "w.safetensors"))
    assert {k: same(found.pop(k), v) for k, v in arrays.items()} == dict.fromkeys(arrays, True)
    assert not found


def test_bfloat16_becomes_float32(tmp_path):
    data = np.array([1.0, -2.5], "float32").view("uint32") >> 16
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "w.safetensors").write_bytes(_safetensors(header, data.astype("uint16").tobytes()))
    found = read_weights(str(tmp_path / "w.safetensors"))["w"]
    assert found.dtype == np.float32 and found.tolist() == [1.0, -2.5]


def test_an_index_of_several_files_is_told_as_such(tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"w": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(UserError, match=r"index\.json: only says in which files the weights lie: .* one \.safetensors"):
        read_weights(str(path))


def _safetensors(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def _one_tensor(dtype, elements, begin, end):
    header = {"a": {"dtype": dtype, "shape": [elements], "data_offsets": [begin, end]}}
    return _safetensors(json.dumps(header).encode(), bytes(end - begin))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda canary: helpers_malicious.weights(canary)["os.system"], id="a pickle"),
        pytest.param(lambda canary: b"", id="nothing"),
        pytest.param(lambda canary: struct.pack("<Q", 1 << 62) + b"{}", id="a header without end"),
        pytest.param(lambda canary: _safetensors(b"[1]"), id="no mapping"),
        pytest.param(lambda canary: _one_tensor("F32", 4, 0, 4), id="a shape that lies"),
        pytest.param(lambda canary: _one_tensor("F32", 1, 4, 8), id="behind the end"),
        pytest.param(
            lambda canary: _safetensors(b'{"w":{"dtype":"F32","shape":[0,4611686018427387904],"data_offsets":[0,0]}}'),
            id="a side without end",
        ),
        pytest.param(lambda canary: _one_tensor("O", 1, 0, 8), id="objects"),
        pytest.param(lambda canary: _one_tensor("F8_E5M2", 8, 0, 8), id="a type that NumPy has not"),
    ],
)
def test_what_only_calls_itself_safetensors_is_refused(tmp_path, content):
    path, canary = tmp_path / "w.safetensors", tmp_path / "canary"
    path.write_bytes(content(canary))
    with pytest.raises(UserError, match=rf"^{path}: "):
        read_weights(str(path))
    assert not canary.exists()


def test_a_safetensors_file_of_another_name_says_so_much(tmp_path):
    write_tensors(tmp_path / "w.pdparams", {"a": np.ones(2)}, ".safetensors")
    with pytest.raises(UserError, match=r"w\.pdparams: not a Paddle file, or a damaged one"):
        read_weights(str(tmp_path / "w.pdparams"))


def test_a_folder_is_no_weight_file(tmp_path):
    os.makedirs(tmp_path / "w.pdparams")
    for name in ("w.pdparams", "none.safetensors"):
        with pytest.raises(UserError, match=r"cannot be read"):
            read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"<!doctype html><p>Sign in", "HTML"), (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull")],
)
def test_what_lies_in_the_place_of_weights_is_told(content, told, tmp_path):
    path = tmp_path / "some.pdparams"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"some.pdparams: not a Paddle file: it is .*{told}"):
        unpickle.load(str(path))
    path = path.rename(tmp_path / "some.safetensors")
    with pytest.raises(UserError, match=f"some.safetensors: not a safetensors file: it is .*{told}"):
        read_tensors(str(path))
