"""The commands as a user calls them, on the device; two processes where there are two devices."""

import contextlib
import glob
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import paddle

from benchmarks.device.lines import NOT_HERE, tried
from benchmarks.device.pairs import CONFIGS, ROOT, Room
from ppkd.errors import UserError

# AP of the demo's shipped teacher on six generated images, on the CPU, and how far a device may be from it.
AP, NEAR = 0.5694, 0.02


def group(args):
    """The lines of this part."""
    room = Room(args.folder, args.device)
    for name, check in {"doctor": _doctor, "evaluation": _evaluation, "export": _export}.items():
        yield tried(name, check, room)


def run(name, *words):
    """Run a subcommand of ``ppkd`` in this process; what it printed and logged."""
    from ppkd import commands
    from ppkd.cli import COMMANDS

    make, function, _ = COMMANDS[name]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        getattr(commands, function)(make().parse_args([str(word) for word in words]))
    return out.getvalue()


def _doctor(room):
    recipe = room.recipe("ppyoloe", "fgd", "doctor")
    files = [os.path.join(CONFIGS, f"ppyoloe_{part}.yml") for part in ("tiny", "fgd")]
    teacher = recipe.teachers["teacher"].weights
    path = os.path.join(room.folder, "doctor.json")
    given = [
        f"dataset_dir={room.data()}",
        f"teacher.pretrain_weights={teacher}",
        "TrainReader.batch_size=4",
        room.flag,
    ]
    told = "nothing speaks against the run"
    try:
        run("doctor", "-c", files[0], "--slim_config", files[1], "--images", 4, "--json", path, "-o", *given)
    except UserError as error:  # it finds fault with a teacher of random weights, and rightly so
        told = str(error)
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    cost = found["results"]["cost"] if "results" in found else found.get("cost", {})
    ratio = cost["distilled"]["step_seconds"] / cost["plain"]["step_seconds"]
    detail = f"it ran to its end ({told}); a distilled step takes {ratio:.2f} times a plain one"
    return bool(cost), detail, {"step_ratio": ratio, "peak_gb": cost["distilled"]["memory_gb"]}


def _shipped(room):
    """What the demo's teacher is called with."""
    weights = os.path.join(ROOT, "ppkd", "data", "teacher_shapes.pdparams")
    data = room.data(192)
    given = [f"weights={weights}", f"dataset_dir={data}", room.flag, "worker_num=0"]
    return os.path.join(ROOT, "configs", "demo", "ppyoloe_plus_teacher_shapes.yml"), data, given


def _evaluation(room):
    config, _, given = _shipped(room)
    path = os.path.join(room.folder, "eval.json")
    run("eval", "-c", config, "--json", path, "-o", *given)
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    detail = f"AP {found['AP']:.4f} (target: {AP} as on the CPU, within {NEAR})"
    return abs(found["AP"] - AP) <= NEAR, detail, found


def _export(room):
    config, _, given = _shipped(room)
    run("export", "-c", config, "--output_dir", room.folder, "-o", *given)
    (folder,) = {os.path.dirname(path) for path in glob.glob(f"{room.folder}/ppyoloe_plus_teacher_shapes/*.pdiparams")}
    (graph,) = (path for path in glob.glob(f"{folder}/model.*") if path.endswith((".pdmodel", ".json")))  # Paddle 2, 3
    settings = paddle.inference.Config(graph, os.path.join(folder, "model.pdiparams"))
    if room.device == "gpu":
        settings.enable_use_gpu(256, 0)
    else:
        settings.disable_mkldnn()  # what Paddle 3.3 turns on by itself runs no interpolation: docs/export.md
    predictor = paddle.inference.create_predictor(settings)
    drawn = np.random.RandomState(0).rand(1, 3, 192, 192).astype("float32")
    values = {"image": drawn, "scale_factor": np.ones([1, 2], "float32"), "im_shape": np.full([1, 2], 192, "float32")}
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(values[name])
    predictor.run()
    found = [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]
    right = bool(found) and all(np.isfinite(x).all() for x in found)
    return right, f"the exported detector gives {', '.join(str(list(x.shape)) for x in found)}, all finite", {}


def ranks(args):
    """The line of two processes that train and evaluate together."""
    return [tried("two ranks", _ranks, Room(args.folder, args.device), args)]


def _ranks(room, args):
    if room.device == "gpu" and paddle.device.cuda.device_count() < 2:
        return NOT_HERE, "one GPU; two are needed", {}
    if args.smallest:
        return NOT_HERE, "left out at the smallest size: tests/training/test_distributed.py runs two processes", {}
    recipe = room.recipe("ppyoloe", "fgd", "ranks")
    where = ["--gpus", "0,1"] if room.device == "gpu" else ["--nproc_per_node", "2"]
    files = [os.path.join(CONFIGS, f"ppyoloe_{part}.yml") for part in ("tiny", "fgd")]
    given = [
        f"dataset_dir={room.data()}", f"teacher.pretrain_weights={recipe.teachers['teacher'].weights}",
        f"save_dir={room.folder}/ranks", "TrainReader.batch_size=3", "log_iter=1", room.flag,
    ]  # fmt: skip
    command = [sys.executable, "-m", "paddle.distributed.launch", *where, "--log_dir", f"{room.folder}/logs"]
    command += [os.path.join(ROOT, "tools", "train.py"), "-c", files[0], "--slim_config", files[1], "--eval"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = _done([*command, "--max_steps", "4", "-o", *given], room.folder, environment)
    if done.returncode:
        last = [line for path in glob.glob(f"{room.folder}/logs/workerlog.*") for line in _read(path)[-1:]]
        told = " | ".join(last or done.stderr.strip().splitlines()[-1:])
        return False, f"exit code {done.returncode}: {told}"[:400], {}
    with open(os.path.join(room.folder, "ranks", "ppyoloe_tiny", "metrics.jsonl"), encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    *_, result = [record for record in records if record["kind"] == "eval"]
    right = len(losses) == 4 and all(math.isfinite(x) for x in losses)
    return right, f"4 steps, loss {losses[0]:.3f} to {losses[-1]:.3f}, evaluated together: AP {result['AP']:.4f}", {}


def _done(command, folder, environment, limit=240, patience=20):
    """What a command ends with; where it takes more than ``limit`` seconds it is asked to end what it has started.

    Raises:
        subprocess.TimeoutExpired: see above.
    """
    launcher = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = launcher.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        launcher.terminate()  # killed it would leave its workers behind, on the devices
        try:
            launcher.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.communicate()
        raise
    return subprocess.CompletedProcess(command, launcher.returncode, "", errors)


def _read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line.strip() for line in file if line.strip()]
