"""What single losses launch on a GPU, forward and backward on small maps: kernels, counted on the CPU.

    python benchmarks/losses/launches.py
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import ppkd  # noqa: F401, I001  # before paddle
import paddle

from benchmarks.study.launches import launches
from ppkd.detectors.context import Assignment
from ppkd.losses import FGDLoss, LDLoss, PPYOLOELoss

BOXES, VALID = [[[4.0, 6.0, 30.0, 25.0], [0.0, 0.0, 9.0, 9.0]]] * 2, [[1.0, 1.0], [1.0, 0.0]]
SIZES = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def fgd():
    """A level, without connectors."""
    loss, boxes, valid = FGDLoss(16), paddle.to_tensor(BOXES), paddle.to_tensor(VALID)
    frame, sides = paddle.full([2, 2], 64.0), [maps(16, [(8, 8)], trained) for trained in (True, False)]
    (student,), (teacher,) = sides
    return lambda: loss(student, teacher, boxes, valid, frame, (64, 64))


def fgd_levels():
    """Five levels of one width, as in an FPN, without connectors."""
    losses, boxes, valid = [FGDLoss(16) for _ in SIZES], paddle.to_tensor(BOXES), paddle.to_tensor(VALID)
    frame, sides = paddle.full([2, 2], 64.0), [maps(16, SIZES, trained) for trained in (True, False)]

    def compute():
        found = FGDLoss.together(losses, *sides, boxes, valid, frame, (64, 64))
        return {f"{i}.{name}": value for i, parts in enumerate(found) for name, value in parts.items()}

    return compute


def ld():
    """Five levels, finding anchors included."""
    loss, boxes, valid, sides = LDLoss(), paddle.to_tensor(BOXES), paddle.to_tensor(VALID), heads(SIZES)
    return lambda: loss(*sides, boxes, valid, (4, 8, 16, 32, 64), 0.5)


def ppyoloe():
    """Three levels of PP-YOLOE's logits."""
    sizes = SIZES[:3]
    loss, cells, sides = PPYOLOELoss(kd_weight=20000.0), sum(h * w for h, w in sizes), heads(sizes)
    labels, scores = paddle.randint(0, 4, [2, cells]), paddle.rand([2, cells, 3])
    return lambda: loss(*sides, Assignment(labels, None, scores, 3), 0)


LOSSES = {"fgd": fgd, "fgd_levels": fgd_levels, "ld": ld, "ppyoloe": ppyoloe}


def maps(channels, sizes, trained):
    """Random maps of two images, one a size."""
    made = [paddle.randn([2, channels, *size]) for size in sizes]
    for x in made:
        x.stop_gradient = not trained
    return made


def heads(sizes):
    """Classes and edges of the student and of the teacher."""
    return [tuple(maps(channels, sizes, trained) for channels in (3, 68)) for trained in (True, False)]


def count(name):
    """Launches of a loss."""
    compute = LOSSES[name]()
    return launches(lambda: paddle.add_n([*compute().values()]).backward())


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    for name, make in LOSSES.items():
        print(f"{name:10} {count(name):4}  {make.__doc__}")


if __name__ == "__main__":
    main()
