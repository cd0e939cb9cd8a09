"""Runs an ONNX file in a process of its own, which cannot take more memory than it is given."""

import contextlib
import importlib.util
import os
import pathlib
import select
import subprocess
import sys
import weakref

from ppkd.errors import UserError
from ppkd.models.onnx.wire import receive, send
from ppkd.models.onnx.worker import CUDA

# Seconds after which a file that has not answered is taken for one that never will.
_PATIENCE = 1800
# Without the folder where one works, which Python would look into first: what lies there may be anybody's.
_START = "import sys; sys.path[:] = [p for p in sys.path if p]; from ppkd.models.onnx.worker import main; main()"


class Process:
    """An ONNX file that another process has opened; it ends with this object, or with this process.

    A file of a stranger may ask for any amount of memory, while it is opened as well as when it runs. What it may take
    is bounded by the system (``RLIMIT_DATA``, Linux), and by ONNX Runtime on a GPU.

    Args:
        path: the file.
        memory: bytes that it may take, beside what Python and ONNX Runtime do.
        where: file and key, for messages.
        gpu: number of the GPU that it is to run on, if ONNX Runtime can; None for the CPU.

    Attributes:
        told: what `worker` says of it: ``inputs`` and ``outputs``, lists of ``[name, type, shape]`` with None for sides
            that are not fixed; ``names`` of classes or None; ``providers`` that run it, and those that are ``known``.
        peak: the most memory that the process has had so far, in bytes.

    Raises:
        UserError: ONNX Runtime is not installed, the file is refused, or wants more memory.
    """

    def __init__(self, path, memory, where, gpu=None):
        self._begin, self._memory = f"{where}: {path}", memory
        if importlib.util.find_spec("onnxruntime") is None:
            raise UserError(f"{where}: ONNX Runtime is not installed: pip install onnxruntime")
        path = os.path.abspath(path)
        self.told = self._start(path)
        if gpu is not None and CUDA in self.told["known"]:  # opened on the CPU first, where the system holds the bound
            self._restart(path, gpu)
            if CUDA not in self.told["providers"]:  # it does not start, and what it left loaded is under no bound
                self._restart(path)
        self.peak = self.told["peak"]

    def _restart(self, path, gpu=None):
        self.close()
        self.told = self._start(path, gpu)

    def _start(self, path, gpu=None):
        here = str(pathlib.Path(__file__).resolve().parents[3])
        paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        gpu = "" if gpu is None else str(gpu)
        command = [sys.executable, "-c", _START, path, str(self._memory), gpu]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            env=os.environ | {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        self.close = weakref.finalize(self, _end, self._process)
        values, _ = self._answer("ONNX Runtime does not open it")
        return values["opened"]

    def run(self, names, feed):
        """The outputs of these names.

        Args:
            names: list.
            feed: name -> array.

        Raises:
            UserError: it does not take these, wants more memory, or its process has ended.
        """
        with contextlib.suppress(OSError):  # it has ended; why, its last answer may say
            send(self._process.stdin, [names, list(feed)], feed.values())
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
        values, arrays = self._answer(f"it does not take {shapes}")
        self.peak = values["peak"]
        return arrays

    def _answer(self, otherwise):
        try:
            ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
            if not ready:
                self.close()
                raise UserError(f"{self._begin}: it has not answered for {_PATIENCE // 60} minutes")
            values, arrays = receive(self._process.stdout)
        except EOFError:
            values, arrays = {"failed": "ended", "told": f"exit status {self._process.wait()}"}, []
        if "failed" not in values:
            return values, arrays
        kind, told, most = values["failed"], values["told"], gigabytes(self._memory)
        if kind == "memory":
            told = f"it wants more memory than the {most} GB that it may take (memory: GB gives more)"
        elif kind == "ended":
            told = f"ONNX Runtime has ended on it, as it does without memory beyond {most} GB ({told})"
        elif kind == "runtime":
            told = f"{otherwise}: {told}"
        elif kind == "import":
            told = f"ONNX Runtime cannot be imported: {told}"
        raise UserError(f"{self._begin}: {told}")


def gigabytes(count):
    """Bytes in gigabytes, for a message."""
    return f"{count / 2**30:.3g}"


def _end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
