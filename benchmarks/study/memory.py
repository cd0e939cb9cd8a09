"""Peak memory of one side, in a process of its own: what Paddle's allocator held at most beyond what it held before."""

import importlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)


def peak_mb(function, *args, whole_process=False):
    """Megabytes (10^6 bytes) that a step needs beyond what was there before it.

    Args:
        function: ``module:name`` of a function that builds a side and returns its step, a function without arguments.
        args: of the function; anything that JSON can hold.
        whole_process: count what building made as well.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, os.path.abspath(__file__), function, json.dumps(args), str(int(whole_process))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{args}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def allocated(peak=False):
    """Bytes that tensors hold now, or held at most so far, on the device that Paddle computes on."""
    import paddle
    from paddle.base import core

    kind = "device" if paddle.get_device().startswith("gpu") else "host"
    place = paddle.framework._current_expected_place()
    number = place.get_device_id() if kind == "device" else 0
    return getattr(core, f"{kind}_memory_stat_{'peak' if peak else 'current'}_value")("Allocated", number)


def held_mb(function):
    """Megabytes (10^6 bytes) that tensors made inside of `function` hold at most, counted in this process.

    Nothing sets the allocator's peak back, so a tensor that is never written to fills what is free below it. Paddle
    looks at the peak only when a thread holds more than it ever held, and what one thread made and another let go stays
    on both accounts: so it is counted in a thread that has no past.
    """
    import paddle

    def count():
        filling = paddle.empty([max(allocated(peak=True) - allocated(), 1)], "uint8")
        before = allocated()
        function()
        held = allocated(peak=True) - before
        del filling
        return held / 1e6

    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(count).result()


def main(function, args, whole_process):
    import ppkd  # noqa: F401  # before paddle

    module, name = function.split(":")
    step = getattr(importlib.import_module(module), name)(*json.loads(args))
    before = 0 if int(whole_process) else allocated()
    step()
    print(json.dumps((allocated(peak=True) - before) / 1e6))


if __name__ == "__main__":
    main(*sys.argv[1:])
