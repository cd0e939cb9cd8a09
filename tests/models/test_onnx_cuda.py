"""On which device an ONNX file runs, seen with a stand-in for ONNX Runtime: there is no GPU where tests run."""

import ast
import logging
import re
import subprocess

import numpy as np
import paddle
import pytest

from ppkd.bridge.workspace import build_detector
from ppkd.models.onnx.process import Process
from ppkd.terminal.log import logger
from tests.models.onnx_file import convolutions

# What it was opened with it tells as the file's names of classes.
STAND_IN = """
KNOWN, STARTS, loaded = {known}, {starts}, []


def get_available_providers():
    return KNOWN


def preload_dlls():
    loaded.append("CUDA's libraries")


class SessionOptions:
    def add_session_config_entry(self, *_):
        pass


class Value:
    def __init__(self, name, channels):
        self.name, self.type, self.shape = name, "tensor(float)", ["n", channels, "h", "w"]


class InferenceSession:
    def __init__(self, path, options, providers):
        self.pairs = [(each, {{}}) if isinstance(each, str) else each for each in providers]
        self.custom_metadata_map = {{"names": repr([repr(self.pairs), *loaded])}}

    def get_inputs(self):
        return [Value("image", 3)]

    def get_outputs(self):
        return [Value("level0", 2)]

    def get_modelmeta(self):
        return self

    def get_providers(self):
        return [name for name, _ in self.pairs if STARTS or "CUDA" not in name]
"""
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Function that puts a stand-in in the place of ONNX Runtime: path of an ONNX file, and all processes begun."""

    def put(known, starts=True):
        (tmp_path / "onnxruntime.py").write_text(STAND_IN.format(known=known, starts=starts))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        (tmp_path / "x.onnx").write_bytes(convolutions([np.ones([2, 3, 2, 2])]))
        begun, begin = [], subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda *args, **keys: begun.append(begin(*args, **keys)) or begun[-1])
        return str(tmp_path / "x.onnx"), begun

    return put


def build(path):
    return build_detector({"architecture": "ONNXTeacher", "ONNXTeacher": {"file": path}})


def opened(process):
    pairs, *loaded = process.told["names"]
    return ast.literal_eval(pairs), loaded


def test_on_a_gpu_it_is_opened_on_the_cpu_first_and_one_process_stays(stand_in):
    path, begun = stand_in([CUDA, CPU])
    process = Process(path, 1 << 28, "x", gpu=3)
    (first, options), (last, _) = opened(process)[0]
    assert (first, last) == (CUDA, CPU) and opened(process)[1] == ["CUDA's libraries"]
    assert (options["device_id"], options["gpu_mem_limit"]) == (3, 1 << 28)
    assert [each.poll() is None for each in begun] == [False, True]


@pytest.mark.parametrize("known, gpu", [([CPU], 0), ([CUDA, CPU], None)])
def test_without_a_gpu_it_is_opened_once(stand_in, known, gpu):
    path, begun = stand_in(known)
    assert opened(Process(path, 1 << 28, "x", gpu)) == ([(CPU, {})], []) and len(begun) == 1


def test_a_cuda_that_does_not_start_leaves_a_process_under_the_bound(stand_in):
    path, begun = stand_in([CUDA, CPU], starts=False)
    process = Process(path, 1 << 28, "x", gpu=0)
    assert opened(process) == ([(CPU, {})], []) and CUDA in process.told["known"]
    assert [each.poll() is None for each in begun] == [False, False, True]


@pytest.mark.parametrize(
    "device, known, told",
    [
        ("gpu:1", [CPU], "runs on the CPU, since ONNX Runtime has nothing for CUDA here: .*onnxruntime-gpu"),
        ("gpu:1", [CUDA, CPU], "runs on the CPU, since ONNX Runtime does not start CUDA here"),
        ("cpu", [CUDA, CPU], None),
        (None, [CPU], None),
        (None, [CUDA, CPU], "does not start CUDA here"),
    ],
)
def test_it_runs_where_paddle_does_and_one_line_says_if_it_cannot(stand_in, monkeypatch, caplog, device, known, told):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: device is not None)
    monkeypatch.setattr(paddle, "get_device", lambda: device)
    monkeypatch.setattr(logger(), "propagate", True)  # to where pytest listens
    with caplog.at_level(logging.WARNING, "ppkd"):
        assert "ONNX Runtime (CPU)" in build(stand_in(known, starts=False)[0]).notice
    lines = {record.getMessage() for record in caplog.records}
    assert len(lines) == (told is not None) and all(re.search(told, line) and "\n" not in line for line in lines)


def test_every_rank_has_the_gpu_that_paddle_has(stand_in, monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:2")
    teacher = build(stand_in([CUDA, CPU])[0])
    assert "ONNX Runtime (CUDA)" in teacher.notice
    assert opened(teacher.session._process)[0][0][1]["device_id"] == 2
