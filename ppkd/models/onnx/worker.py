"""The process in which ONNX Runtime runs a file of somebody: bounded in memory, and it can write no file.

Its arguments are FILE BYTES GPU, the last empty for the CPU; see `process.Process`.
"""

import ast
import json
import os
import signal
import sys
import threading
import time

from ppkd.errors import UserError
from ppkd.models.onnx.contents import check_contents
from ppkd.models.onnx.wire import receive, send

# Of the memory that it may take, the share that outputs may have: the other process holds them as well.
OUTPUTS = 4
# Bytes of text in which a file may name its classes, and its inputs and outputs.
_NAMES = 1 << 20
CUDA = "CUDAExecutionProvider"
_LOOK = 1  # seconds between two looks whether the other process is there
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "out of memory", "std::length_error")


def main():
    """Open the file, tell what it is, then run it on what comes in until there is no more."""
    path, memory, gpu = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process decides when it ends
    incoming, outgoing = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    # Of a file, ONNX Runtime would take its own settings.
    os.environ.pop("ORT_LOAD_CONFIG_FROM_MODEL", None)
    try:
        import onnxruntime

        if gpu is None:  # CUDA's own host memory is not the file's
            _bound(memory)
        elif hasattr(onnxruntime, "preload_dlls"):  # CUDA and cuDNN as pip installs them
            onnxruntime.preload_dlls()
        check_contents(path)
        session = _open(onnxruntime, path, memory, gpu)
        if gpu is not None:
            _bound(memory)
        send(outgoing, {"opened": _told(session, onnxruntime.get_available_providers())})
    except Exception as error:  # ONNX Runtime's are of many classes, which have no common one
        send(outgoing, _failure(error))
        return
    while True:
        try:
            (names, feed), arrays = receive(incoming)
        except EOFError:
            return
        try:
            found = [_numbers(value) for value in session.run(names, dict(zip(feed, arrays)))]
            if sum(value.nbytes for value in found) > memory // OUTPUTS:
                raise MemoryError
            answer = {"peak": _peak()}, found
        except Exception as error:  # see above
            answer = _failure(error), ()
        send(outgoing, *answer)


def _end_with(other):
    """End when the other process has, whatever the file does: one that never answers would go on for ever."""
    while os.getppid() == other:
        time.sleep(_LOOK)
    os._exit(1)


def _open(onnxruntime, path, memory, gpu):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers = ["CPUExecutionProvider"]
    if gpu is not None:
        of_cuda = {"device_id": gpu, "gpu_mem_limit": memory, "arena_extend_strategy": "kSameAsRequested"}
        providers.insert(0, (CUDA, of_cuda))
    return onnxruntime.InferenceSession(path, options, providers=providers)


def _told(session, known):
    inputs, outputs = (
        [[each.name, each.type, [n if isinstance(n, int) else None for n in each.shape or ()]] for each in some]
        for some in (session.get_inputs(), session.get_outputs())
    )
    about = session.get_modelmeta().custom_metadata_map
    if len(json.dumps([inputs, outputs])) > _NAMES:
        raise UserError(f"it has {len(outputs)} outputs, and says more of inputs and outputs than a megabyte holds")
    told = {"inputs": inputs, "outputs": outputs, "names": _names(about.get("names", ""))}
    return told | {"providers": session.get_providers(), "known": known, "peak": _peak()}


def _names(text):
    """Names of classes as Ultralytics writes them, a dict or list as Python shows it; None if they are none."""
    if not text or len(text) > _NAMES:
        return None
    for read in (ast.literal_eval, json.loads):  # literals alone: neither evaluates anything
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, dict):
            return {str(key): str(name) for key, name in found.items()}
        if isinstance(found, (list, tuple)):
            return [str(name) for name in found]
    return None


def _numbers(value):
    """An output as an array of numbers; of a sequence or text there is none."""
    import numpy as np

    value = np.asarray(value) if isinstance(value, np.ndarray) else np.empty(0, "O")
    if value.dtype.kind not in "fiub":
        raise UserError("an output is no tensor of numbers")
    return value.astype("float32") if value.dtype.kind == "f" else value


def _bound(memory):
    """Let this process have no more than so many bytes beside those that it has now."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[5]) * resource.getpagesize()
    except (ImportError, OSError):  # not Linux
        return
    most = now + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _peak():
    """The most memory that this process has had, in bytes; 0 where nobody says it."""
    try:
        # Not `ru_maxrss`: Linux hands on to it what the process had that started this one.
        with open("/proc/self/status") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _failure(error):
    text = " ".join(str(error).split())
    memory, text = isinstance(error, MemoryError) or any(each in text for each in _OUT_OF_MEMORY), text[:300]
    if memory:
        return {"failed": "memory", "told": text}
    if isinstance(error, ImportError):
        return {"failed": "import", "told": text}
    return {"failed": "contents" if isinstance(error, (UserError, OSError)) else "runtime", "told": text}
