"""The device and its processes: what a Paddle for CUDA would do, imitated where there is none."""

import os

import paddle
import pytest

from ppkd.errors import UserError
from ppkd.training import device
from ppkd.training.device import start_device


@pytest.fixture
def cuda(monkeypatch):
    """A Paddle for CUDA with two GPUs and two processes; yields what was asked of it."""
    asked = []
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(paddle, "set_device", asked.append)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "auto")  # put back afterwards
    joins = lambda: asked.append(os.environ["PADDLE_DISTRI_BACKEND"])  # noqa: E731
    monkeypatch.setattr(paddle.distributed, "init_parallel_env", joins)
    return asked


@pytest.mark.parametrize("config", [{"use_gpu": True}, {"use_gpu": False}, {}])
def test_processes_on_the_cpu_talk_by_gloo_whatever_paddle_is_built_for(cuda, config):
    start_device(config)
    assert cuda == (["gpu", "auto"] if config.get("use_gpu") else ["cpu", "gloo"])


def test_processes_without_a_gpu_do_too(cuda, monkeypatch):
    """With `auto`, Paddle takes nccl as soon as it is built for CUDA."""
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    config = {"use_gpu": True}
    start_device(config)
    assert cuda == ["cpu", "gloo"] and config == {"use_gpu": False}


def test_deterministic_sets_what_this_paddle_has(monkeypatch, caplog):
    tried = []

    def set_flags(flags):
        tried.extend(flags.items())
        if "embedding" in next(iter(flags)):
            raise ValueError("cannot set its value")

    monkeypatch.setattr(paddle, "set_flags", set_flags)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for config in ({}, {"deterministic": False}):
        start_device(config)
    assert not tried and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    start_device({"deterministic": True})
    assert tried == [(name, True) for name in device._DETERMINISTIC]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    told = [line for line in caplog.messages if line.startswith("deterministic: ")]
    assert [line.split(": ")[1] for line in told] == ["FLAGS_cpu_deterministic", "FLAGS_cudnn_deterministic"]


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(UserError, match="deterministic has to be true or false, found"):
        start_device({"deterministic": value})
