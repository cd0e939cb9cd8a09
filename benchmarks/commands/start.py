"""Rows of what a command costs before it does anything: seconds that it computes, over those of ``import paddle``.

On an idle machine with files in its cache that is the time that passes.
"""

import os
import subprocess
import sys

from benchmarks.reporting.rows import Row
from benchmarks.study.timing import statistics

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMANDS = {
    "paddle": ["-c", "import zlib, paddle"],
    "import ppkd": ["-c", "import ppkd, paddle"],
    "tools/train.py --help": [os.path.join(ROOT, "tools", "train.py"), "--help"],
}


def start(repeats=7):
    found = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            begin = _of_children()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
            found[name].append(_of_children() - begin)
    seconds = {name: statistics.median(values) for name, values in found.items()}
    paddle, note = seconds.pop("paddle"), "seconds over import paddle"
    return [Row(f"start {name}", x, None, paddle, x - paddle, "<= 0.5", note=note) for name, x in seconds.items()]


def _of_children():
    times = os.times()
    return times.children_user + times.children_system


GROUPS = {"start": start}
