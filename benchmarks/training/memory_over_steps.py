"""Measures what a training process holds over many steps with images and boxes of varying size and number.

    python benchmarks/training/memory_over_steps.py --steps 20000 --output memory

A peak can only grow, and does so whenever a batch comes that is larger than all before it. So this looks at what is
held after a step: resident memory, what the C library has given out (Paddle's tensors on a CPU among it) and what it
keeps of what came back, Python's objects, open files. The data are generated: images of 20 to 96 pixels with 0 to 60
boxes, one a step; and the pair is the tests' tiny RetinaNet, so that a step costs little. ``-c``, ``--slim_config``
and ``-o`` measure another.

Growth is the median of the last quarter against that of the second. Exits 1 if resident memory grows by more than 2 %
of itself, or what the C library has given out or Python's objects do. docs/reliability.md has the figures.
"""

import argparse
import ctypes
import gc
import json
import os
import pathlib
import random
import resource
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

CONFIGS = ROOT / "tests" / "configs"
IMAGES, SIDES, MOST_BOXES, CLASSES = 240, (20, 96), 60, 3
HELD = ("resident_mb", "given_out_mb", "kept_mb", "objects", "files")
# Shares of the second quarter's value by which the last quarter's may be above it.
ALLOWED = {"resident_mb": 0.02, "given_out_mb": 0.02, "objects": 0.02, "files": 0.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--every", type=int, default=100, help="steps between two looks")
    parser.add_argument("--output", default="memory", help="folder for the data, the run and memory.jsonl")
    parser.add_argument("--plain", action="store_true", help="without a teacher")
    parser.add_argument("-c", "--config", default=str(CONFIGS / "retinanet_tiny.yml"))
    parser.add_argument("--slim_config", default=str(CONFIGS / "retinanet_cwd.yml"))
    parser.add_argument("-o", "--opt", nargs="*", default=None, help="in place of the generated data")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    output = pathlib.Path(args.output).resolve()
    given = args.opt if args.opt is not None else generated(output / "data")
    slim = None if args.plain else args.slim_config
    common = ["pretrain_weights=null", f"save_dir={output}", "epoch=1000000", "snapshot_epoch=1000000", "log_iter=100"]
    looks = train(args.config, slim, [*given, *common], args.steps, args.every, output)
    return report(looks)


def generated(folder):
    """Make the data; the overrides that use them."""
    import cv2
    import numpy as np

    draw, images, annotations = random.Random(0), [], []
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for number in range(1, IMAGES + 1):
        width, height = draw.randint(*SIDES), draw.randint(*SIDES)
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype="uint8")
        cv2.imwrite(str(folder / "train" / f"{number}.png"), pixels)
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for _ in range(draw.choice([0, 1, 3, 10, 30, MOST_BOXES])):
            w, h = draw.uniform(4, width / 2), draw.uniform(4, height / 2)
            box = [draw.uniform(0, width - w), draw.uniform(0, height - h), w, h]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": draw.randint(1, CLASSES), "bbox": box,
                 "area": w * h, "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return [f"dataset_dir={folder}", "TrainReader.batch_size=1", *_teacher(folder)]


def _teacher(folder):
    """Weights for the tests' teacher, which is not trained: what it says is of no matter here."""
    import ppkd  # noqa: F401, I001  # before paddle
    import paddle
    from ppkd.build import build_student
    from ppkd.recipe.recipe import load_recipe

    path = folder / "teacher.pdparams"
    teacher = build_student(load_recipe(str(CONFIGS / "retinanet_wide.yml"), None, [f"dataset_dir={folder}"]))
    paddle.save(teacher.state_dict(), str(path))
    return [f"teacher.pretrain_weights={path}"]


def train(config, slim, overrides, steps, every, output):
    """Train for so many steps; what was held after every so many."""
    import ppkd  # noqa: F401  # before paddle
    from ppkd.recipe.recipe import load_recipe
    from ppkd.training.trainer import Trainer

    overrides = [o for o in overrides if slim or not o.startswith(("teacher.", "distill."))]
    looks, done = [], 0
    with Trainer.open(load_recipe(config, slim, overrides), max_steps=steps) as trainer:
        step = trainer.optimizer.step

        def watched():
            nonlocal done
            step()
            done += 1
            if done % every == 0:
                looks.append({"step": done, **held()})
                with open(output / "memory.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(looks[-1]) + "\n")

        trainer.optimizer.step = watched
        trainer.run()
    return looks


def held():
    """What the process holds now, in megabytes (10^6 bytes), and numbers of objects and files."""
    gc.collect()
    library = _of_the_c_library()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident_mb": pages * resource.getpagesize() / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        **library,
        "objects": len(gc.get_objects()),
        "files": len(os.listdir("/proc/self/fd")),
    }


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    ]  # fmt: skip


def _of_the_c_library():
    """Of glibc: what it has given out, and what was given back to it and not yet to the system."""
    find = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if find is None:
        return {"given_out_mb": 0.0, "kept_mb": 0.0}
    find.restype = _Mallinfo
    found = find()
    return {"given_out_mb": (found.uordblks + found.hblkhd) / 1e6, "kept_mb": found.fordblks / 1e6}


def report(looks):
    quarter = len(looks) // 4
    if not quarter:
        print("too few steps to tell anything")
        return 1
    print(f"{looks[-1]['step']} steps; peak {looks[quarter]['peak_mb']:.0f} MB after a quarter, "
          f"{looks[-1]['peak_mb']:.0f} at the end")  # fmt: skip
    failed = []
    for key in HELD:
        second, last = (
            statistics.median(look[key] for look in part)
            for part in (looks[quarter : 2 * quarter], looks[-quarter:])
        )  # fmt: skip
        first = looks[0][key]
        print(f"{key:<14} first {first:10.1f}   second quarter {second:10.1f}   last quarter {last:10.1f}")
        if key in ALLOWED and last > second * (1 + ALLOWED[key]):
            failed.append(key)
    print(f"grew: {', '.join(failed)}" if failed else "nothing grew")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
