"""Peak memory of losses on the way that they take on a GPU, beside the CPU's.

    python benchmarks/losses/on_a_gpu.py
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from benchmarks.memory import peak_mb

LOSSES = {"FGD": ("fgd",), "CWD": ("feature", "cwd"), "PKD": ("feature", "pkd"), "LD": ("ld",)}


def step(build, *args):
    """The step of ``rows.BUILD("ours", ...)`` in a process that takes itself for one with a GPU."""
    from benchmarks.losses import rows
    from ppkd.losses import kernels

    kernels.on_cpu = lambda _: False
    return getattr(rows, build)("ours", *args)


def main():
    print(f"{'loss':5} {'CPU, MB':>8} {'GPU, MB':>8} {'ratio':>6}")
    for name, (build, *args) in LOSSES.items():
        here = peak_mb(f"benchmarks.losses.rows:{build}", "ours", *args)
        there = peak_mb("benchmarks.losses.on_a_gpu:step", build, *args)
        print(f"{name:5} {here:8.0f} {there:8.0f} {there / here:6.2f}", flush=True)


if __name__ == "__main__":
    main()
