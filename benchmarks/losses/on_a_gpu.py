"""Peak memory of losses on the way that they take on a GPU, beside the CPU's.

    python benchmarks/losses/on_a_gpu.py
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import ppkd  # noqa: F401  # before paddle
from benchmarks.losses import rows
from benchmarks.study.launches import as_on_a_gpu
from benchmarks.study.memory import held_mb

LOSSES = {
    "FGD": ("fgd",),
    "FGD, five levels": ("fgd_levels",),
    "CWD": ("feature", "cwd"),
    "PKD": ("feature", "pkd"),
    "LD": ("ld",),
}


def both(name, *more):
    """Megabytes that forward and backward of a loss hold at most, on the CPU's way and on a GPU's; `more` goes to what
    builds it."""
    build, *args = LOSSES[name]
    args += more
    here = held_mb(getattr(rows, build)("ours", *args))
    with as_on_a_gpu():
        return here, held_mb(getattr(rows, build)("ours", *args))


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    print(f"{'loss':16} {'CPU, MB':>8} {'GPU, MB':>8} {'ratio':>6}")
    for name in LOSSES:
        here, there = both(name)
        print(f"{name:16} {here:8.0f} {there:8.0f} {there / here:6.2f}", flush=True)


if __name__ == "__main__":
    main()
