"""The method of every published pair on small detectors: steps in each precision, and going on after a stop."""

import json
import math
import os

import numpy as np
import paddle

from benchmarks.device.lines import MISSED, NOT_ON_CPU, OK, tried
from benchmarks.models.random_weights import make_weights

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONFIGS = os.path.join(ROOT, "tests", "configs")
# Detector and method, as the files of CONFIGS are named.
PAIRS = (
    ("ppyoloe", "ppyoloe"), ("gfl", "ld"), ("gfl", "cwd"), ("retinanet", "fgd"), ("yolov3", "yolov3"),
    ("picodet", "ld"), ("rtmdet", "neck"), ("resnet", "matching"),
)  # fmt: skip
PRECISIONS = {
    "float32": None,
    "O1": ["amp_level=O1"],
    "O2": ["amp_level=O2"],
    "teacher in float16": ["teacher_dtype=float16"],
}
# How far the first step's loss may be from float32's: the student's own is of the lower type.
CLOSE = 0.05


class Room:
    """A folder with a data set and teachers' weights, both made when first asked for.

    Args:
        folder: an empty one.
        device: ``gpu`` or ``cpu``.

    Attributes:
        flag: what says so to ``-o``.
    """

    def __init__(self, folder, device):
        self.folder, self.device, self.flag = folder, device, f"use_gpu={str(device == 'gpu').lower()}"

    def data(self, size=64, train=12, val=6):
        """Folder of a generated data set."""
        from ppkd.data.shapes import generate

        path = os.path.join(self.folder, f"shapes_{size}")
        return path if os.path.isdir(path) else str(generate(path, train=train, val=val, size=size, seed=0))

    def recipe(self, family, method, name, more=()):
        """The recipe of a pair, with random weights for its teacher."""
        from ppkd.recipe.recipe import load_recipe

        given = [
            f"dataset_dir={self.data()}", f"save_dir={self.folder}/{name}", self.flag,
            f"teacher.pretrain_weights={self._teacher(family)}", "TrainReader.batch_size=4", "worker_num=0", *more,
        ]  # fmt: skip
        student, slim = (os.path.join(CONFIGS, f"{family}_{part}.yml") for part in ("tiny", method))
        return load_recipe(student, slim, given)

    def _teacher(self, family):
        from ppkd.bridge.datasets import open_dataset
        from ppkd.bridge.workspace import create, scope
        from ppkd.recipe.recipe import load_recipe
        from ppkd.training.loader import TrainLoader

        path = os.path.join(self.folder, f"{family}_wide.pdparams")
        if not os.path.exists(path):
            files = [os.path.join(CONFIGS, f"{family}_{part}.yml") for part in ("wide", "tiny")]
            wide, tiny = (load_recipe(file, None, [f"dataset_dir={self.data()}"]).student for file in files)
            with scope(tiny):
                dataset = open_dataset("TrainDataset", tiny)
                batches = [{**next(TrainLoader(create("TrainReader"), dataset, 0, 0).epoch(0)), "epoch_id": 0}]
            make_weights(wide, batches, path, seed=7)
        return path


def group(args, pair):
    """The lines of one pair."""
    family, method = pair
    room, first = Room(args.folder, args.device), {}
    for name, more in PRECISIONS.items():
        title = f"train {family} {method} {name}"
        if more is not None and args.device == "cpu":
            yield tried(title, lambda: (NOT_ON_CPU, "Paddle mixes precisions on a GPU only", {}))
        else:
            yield tried(title, _train, room, pair, title, more, args.steps, first)


def _train(room, pair, title, more, steps, first):
    from ppkd.training.trainer import Trainer

    epochs = -(-steps // 3)
    given = [f"epoch={epochs}", "snapshot_epoch=1000", "log_iter=1", *(more or ())]
    recipe = room.recipe(*pair, title.replace(" ", "_"), given)
    with Trainer.open(recipe, amp=more is not None, max_steps=steps) as trainer:
        before = [(p, p.clone()) for model in trainer.distill.teachers.values() for p in model.parameters()]
        trainer.run()
        moved = sum(not bool((p == copy).all()) for p, copy in before)
    records = [record for record in _records(recipe) if record["kind"] == "train"]
    losses = [record["loss"] for record in records]
    seconds = sorted(record["seconds_per_step"] for record in records[len(records) // 3 :])
    numbers = {
        "losses": losses, "seconds_per_step": seconds[len(seconds) // 2],
        "memory_held_gb": records[-1]["memory_held_gb"], "skipped": records[-1].get("skipped_steps", 0),
    }  # fmt: skip
    finite = len(records) == steps and all(math.isfinite(x) for x in losses)
    detail = (
        f"{len(records)} steps, loss {losses[0]:.3f} to {losses[-1]:.3f}, {numbers['seconds_per_step']:.3f} s a step, "
        f"{numbers['memory_held_gb']:.2f} GB held"
    )
    close, told, gap = _beside_float32(losses[0], more is None, first)
    numbers["first_step_beside_float32"] = gap
    detail += told
    if moved:
        detail += f"; {moved} of the teacher's tensors have CHANGED"
    right = finite and not moved
    return OK if right and close else MISSED if right else False, detail, numbers


def _beside_float32(loss, is_float32, first):
    """Whether a first loss is near float32's, which is kept in ``first``; in words, and how far it is or None."""
    if is_float32:
        first["loss"] = loss
        return True, "", None
    if "loss" not in first:
        return False, "; what float32's first loss is was not seen, so this one is beside nothing", None
    gap = abs(loss - first["loss"]) / max(abs(first["loss"]), 1e-12)
    return gap <= CLOSE, f"; first loss {gap:.1e} beside float32's (target: at most {CLOSE})", gap


def _records(recipe):
    with open(os.path.join(recipe.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def resume(args):
    """The line of a run that is stopped in the middle of an epoch and goes on."""
    return [tried("resume", _resume, Room(args.folder, args.device))]


def _resume(room):
    from ppkd.training.trainer import Trainer

    ends, stopped = {}, [{"max_steps": 2}, {"max_steps": 4, "resume": "auto"}]
    for name, parts in {"whole": [{"max_steps": 4}], "parts": stopped}.items():
        for options in parts:
            recipe = room.recipe("ppyoloe", "fgd", f"resume_{name}", ["deterministic=true", "use_ema=true"])
            _switch(recipe)
            with Trainer.open(recipe, **options) as trainer:
                trainer.run()
        ends[name] = paddle.load(os.path.join(recipe.output_dir, "model_final.resume"))
        ends[name]["ema"].pop("epoch")  # counts snapshots, of which one run has made more
    gaps = [_gap(ends["whole"][part], ends["parts"][part]) for part in ("student", "terms", "ema", "optimizer")]
    most = 0.0 if room.device == "cpu" else 1e-4
    detail = f"the two runs differ by {max(gaps):.1e} (target: at most {most:g})"
    return max(gaps) <= most, detail, {"gap": max(gaps)}


def _switch(recipe):
    from ppkd.training.device import start_device

    start_device(recipe.student)


def _gap(first, second):
    """The largest difference of two nested states' tensors, each beside the largest value of its own."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max((_gap(first[key], second[key]) for key in first), default=0.0)
    if not hasattr(first, "numpy"):
        return 0.0 if first == second else math.inf
    first, second = (np.asarray(x.numpy(), "float64") for x in (first, second))
    return float(np.abs(first - second).max() / max(np.abs(first).max(), 1e-12)) if first.size else 0.0
