"""Weight files of any content: plain values or a UserError, and nothing runs."""

import io
import pathlib
import pickle
import struct

import numpy as np
import pytest
import safetensors  # noqa: F401  # before it is watched what runs
from hypothesis import strategies as st

from ppkd.errors import UserError
from ppkd.files import tensor_files, unpickle
from tests import helpers_malicious
from tests.fuzz.inputs import inputs

FILES = [path.read_bytes() for path in (pathlib.Path(__file__).parents[1] / "files" / "paddle_files").glob("*.pd*")]
FILES += helpers_malicious.weights("canary").values()
PLAIN = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, bool, type(None), np.ndarray)

NAMES = [(module, name) for module, name in unpickle._KNOWN] + [
    ("posix", "system"), ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "__import__"), ("os", "system"),
    ("numpy", "load"), ("numpy.core.multiarray", "array"), ("copyreg", "_reconstructor"), ("builtins", "object"),
]  # fmt: skip


@st.composite
def changed_bytes(draw, files):
    """One of some files, with bytes changed, cut out or put in."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        if not content:
            break
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(("change", "cut", "insert", "end")))
        if kind == "change":
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 9))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at:]
    return bytes(content)


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


ARGUMENTS = st.one_of(
    st.sampled_from(["f4", "<f4", "O", "V8", "b", "latin1", "<", "|", "data", "S3", "a"]).map(short),
    st.integers(0, 255).map(lambda n: b"K" + bytes([n])),
    st.binary(max_size=16).map(lambda raw: b"C" + bytes([len(raw)]) + raw),
    st.sampled_from([b"N", b"\x88", b"\x89", b"]", b"}", b")", b"(", b"\x8f"]),
    st.floats().map(lambda value: b"G" + struct.pack(">d", value)),
    st.integers(-(2**70), 2**70).map(lambda n: pickle.dumps(n, 2)[2:-1]),
)
CALLS = st.sampled_from(NAMES).map(lambda pair: short(pair[0]) + short(pair[1]) + b"\x93")
STACK = st.sampled_from([b"R", b"b", b"\x81", b"\x85", b"\x86", b"\x87", b"t", b"0", b"2", b"1", b"a", b"s", b"e", b"u",
                         b"\x94", b"h\x00", b"h\x01", b"o", b"\x92", b"\x90", b"\x91", b"l", b"d", b"q\x00",
                         b"Q"])  # fmt: skip
ARRAY = pickle.dumps(np.ones(2, "float32"), 2)[2:-1]
PROGRAMS = st.lists(st.one_of(ARGUMENTS, CALLS, STACK, st.just(ARRAY), STACK), max_size=40).map(
    lambda parts: b"\x80\x04" + b"".join(parts) + b"."
)


def check(value, seen):
    assert isinstance(value, (*PLAIN, np.generic)), type(value)
    assert type(value) in PLAIN or isinstance(value, np.generic), type(value)
    if isinstance(value, np.ndarray):
        assert type(value) is np.ndarray and value.dtype.kind in "biufc"
        value.sum()  # reads every byte that it says it has
    if isinstance(value, (dict, list, tuple, set, frozenset)) and id(value) not in seen:
        seen.add(id(value))
        for part in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
            check(part, seen)


@pytest.mark.parametrize("kind", ["mutated", "programs", "bytes"])
def test_pickles(kind, quiet):
    @inputs({"mutated": changed_bytes(FILES), "programs": PROGRAMS, "bytes": st.binary(max_size=200)}[kind])
    def run(content):
        stream = io.BytesIO(content)
        try:
            with quiet(), np.errstate(all="ignore"):
                found = unpickle.loads(stream, "x")
        except UserError as error:
            assert str(error).startswith("x: ")
            return
        with np.errstate(all="ignore"):
            check(found, set())

    run()


HEADERS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*tensor_files._TYPES, "O", "F8_E5M2", ""]),
        "shape": st.lists(st.integers(-1, 4), max_size=3) | st.just([1 << 62, 4]),
        "data_offsets": st.tuples(st.integers(-1, 40), st.integers(-1, 40)).map(list),
    }
)


def test_safetensors(tmp_path_factory, quiet):
    import json

    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__", ""]), HEADERS, max_size=3).map(
        lambda header: json.dumps(header).encode()
    )

    @inputs(st.one_of(headers, st.binary(max_size=60)), st.binary(max_size=40), st.integers(-2, 2))
    def run(header, data, lie):
        path.write_bytes(struct.pack("<Q", max(0, len(header) + (lie if abs(lie) == 2 else 0))) + header + data)
        try:
            with quiet():
                found = tensor_files.read_tensors(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            return
        with np.errstate(all="ignore"):
            check(found, set())

    run()
