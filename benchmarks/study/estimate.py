"""What distillation adds to a step of the published recipes on 1, 8 and 64 GPUs: an estimate on paper.

    python benchmarks/study/estimate.py [NAME ...]

Counted, with the full-size networks and one image of the published size: the operations of the student's forward and of
the needed part of the teacher's, the teacher's weights, the maps that are recorded of it, and the parameters of
connectors and losses. A training step of the student is taken as three forwards. The rest is arithmetic on a GPU of
the kind that is named in `GPU`; utilisation is the same for both networks, so that it cancels out of the shares.
"""

# ruff: noqa: E402
import argparse
import os
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

import ppkd  # noqa: F401, I001  # before paddle
import paddle

from benchmarks.methods import recipes
from ppkd.terminal.table import text_table

# Recipe of recipes.py -> height and width in pixels (the mean of what it trains with), images a GPU.
PUBLISHED = {
    "ppyoloe_l_plain": ((640, 640), 8),
    "ppyoloe_m_plain": ((640, 640), 8),
    "ppyoloe_s_plain": ((640, 640), 8),
    "gfl_ld": ((800, 1344), 2),
    "gfl_cwd": ((800, 1344), 2),
    "retinanet_fgd": ((800, 1344), 2),
    "yolov3": ((448, 448), 8),
}
# An A100: float32 by TF32 units, of which a detector reaches a quarter; memory; NVLink within 8, InfiniBand beyond.
GPU = {"flops": 156e12 * 0.25, "memory": 1.5e12, "links": {1: None, 8: 200e9, 64: 20e9}}
# Passes over the recorded maps that a loss makes on a GPU, forward and backward, temporaries included: an upper bound.
PASSES = 30


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(PUBLISHED), help=f"of {', '.join(PUBLISHED)}")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in PUBLISHED]:
        parser.error(f"no recipe {unknown[0]}; there are {', '.join(PUBLISHED)}")
    rows = [["recipe", "student, GFLOPs", "teacher's part", "compute", "weights, MB", "maps, MB", "own, MB"]]
    rows[0] += [f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in GPU["links"]]
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows.append([name, *estimate(**counted(name))])
    print(text_table(rows))


def counted(name):
    """What one image costs.

    Returns:
        Dict: ``student`` and ``teacher`` in 10^9 operations; ``student_bytes`` and ``teacher_bytes`` of weights;
        ``maps_bytes`` of what is recorded of the teacher; ``own_bytes`` of what connectors and losses train;
        ``images`` a GPU.
    """
    import ppkd.build
    from ppkd.detectors.recorders import Recorder
    from ppkd.study.cost import example_batch, gflops_of

    size, images = PUBLISHED[name]
    ppkd.build.load_teacher = lambda *_: "random weights"
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipes.reduced(name, folder, folder, more=["teacher.pretrain_weights=WEIGHTS"])
        recipe.student["pretrain_weights"] = None
        model = ppkd.build.build_model(recipe)
    ((_, detector),) = model.asked
    batch, taps = example_batch(size), {tap for term in model.terms for tap in term.taps(1)}
    parts = {path.split(".")[0] for tap in taps for path in tap.paths}
    with paddle.no_grad(), Recorder(detector.model, [path for tap in taps for path in tap.paths]) as recorder:
        teacher = gflops_of(detector.model, lambda: detector.run(dict(batch), parts))
    return {
        "student": gflops_of(model.student, lambda: model.student(dict(batch))),
        "teacher": teacher,
        "student_bytes": _bytes(p for p in model.student.parameters() if not p.stop_gradient),
        "teacher_bytes": _bytes([*detector.model.parameters(), *detector.model.buffers()]),
        "maps_bytes": _bytes(recorder.take(tap) for tap in taps),
        "own_bytes": _bytes(p for p in model.distillation.parameters() if not p.stop_gradient),
        "images": images,
    }


def _bytes(tensors):
    return float(sum(4 * x.size for x in tensors))


def estimate(student, teacher, student_bytes, teacher_bytes, maps_bytes, own_bytes, images):
    """The cells of a row; times are shares of the plain student's step, whose communication hides behind nothing."""
    plain = 3e9 * student * images / GPU["flops"]
    added = 1e9 * teacher * images / GPU["flops"] + PASSES * maps_bytes * images / GPU["memory"]
    shares = []
    for gpus, link in GPU["links"].items():
        # Of a ring: every byte of a gradient is sent twice but for one part in `gpus`.
        of_a_byte = 2 * (gpus - 1) / gpus / link if link else 0.0
        shares.append((added + own_bytes * of_a_byte) / (plain + student_bytes * of_a_byte))
    cells = [f"{student:.1f}", f"{teacher:.1f}", f"+{teacher / student / 3:.0%}"]
    cells += [f"{x / 1e6:.1f}" for x in (teacher_bytes, maps_bytes * images, own_bytes)]
    return cells + [f"+{share:.0%}" for share in shares]


if __name__ == "__main__":
    sys.exit(main())
