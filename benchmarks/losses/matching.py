#!/usr/bin/env python3
"""What the matching of sets costs of a training step: `detr_match` with its assignment on the host.

    python benchmarks/losses/matching.py [--queries 300] [--images 8] [--layers 3] [--step SECONDS]

Prints the milliseconds of the whole loss, forward and backward, and of the assignment in it: costs to the host, SciPy's
solver for every layer and image, and the numbers back. With the seconds of a step of your model and machine also the
share of it.
"""

import argparse
import time

import ppkd  # noqa: F401  # before paddle

# isort: split
import paddle

from ppkd.losses.detr_match import DETRMatchLoss, assign, match_cost


def seconds(function, times=5):
    """The fastest of some calls."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return min(found)


def sets(layers, images, queries, classes):
    """Logits and boxes, a list entry a layer, as a trained decoder has them: few queries with a high score."""
    logits = [paddle.randn([images, queries, classes]) - 4 for _ in range(layers)]
    boxes = [paddle.rand([images, queries, 4]) * 0.4 + 0.1 for _ in range(layers)]
    for x in (*logits, *boxes):
        x.stop_gradient = False
    return logits, boxes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--step", type=float, help="seconds of a training step")
    args = parser.parse_args()
    paddle.seed(0)
    student, teacher = (sets(args.layers, args.images, args.queries, args.classes) for _ in range(2))
    for top in (None, 100):
        loss = DETRMatchLoss(top=top)

        def whole(loss=loss):
            sum(loss(student, teacher).values()).backward()

        wanted, target = (paddle.stack(x).flatten(0, 1) for x in teacher)
        kept, boxes = loss._best(wanted, target, args.queries)
        scores = [paddle.nn.functional.sigmoid(x) for x in (paddle.stack(student[0]).flatten(0, 1), kept)]
        cost = match_cost(scores[0], paddle.stack(student[1]).flatten(0, 1), scores[1], boxes, *loss.costs).detach()
        matching, all_of_it = seconds(lambda cost=cost: assign(cost)), seconds(whole)
        told = f"top {top or 'all'}: assignment {1000 * matching:.1f} ms, whole loss {1000 * all_of_it:.1f} ms"
        print(told + (f", {matching / args.step:.2%} of a step" if args.step else ""), flush=True)


if __name__ == "__main__":
    main()
