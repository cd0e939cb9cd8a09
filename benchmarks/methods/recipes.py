"""Three training steps of every shipped recipe with its full-size networks, on small generated images and on the CPU.

    python benchmarks/methods/recipes.py [NAME ...] [--json FILE]

Weights are random (nothing is downloaded), with the statistics of batch norm made to fit: `random_weights`. So the
table of what each part of the loss does to the student tells that it is there, finite and connected, not how strong it
will be in earnest. The exit code is 1 if anything is not finite, missing or zero. Every recipe is a process of its own,
with one thread.
"""

# ruff: noqa: E402
import argparse
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from ppkd.files.yaml_io import dump
from ppkd.recipe.plan import TEACHER
from ppkd.terminal.log import duration

STEPS = 3
# Of the square images that train: the coarsest level, stride 128, has two by two cells, and CWD of one cell is 0.
SIZE = 160
PYRAMID = (8, 16, 32, 64, 128)
FGD_PARTS = ("fg", "bg", "attention", "relation")


@dataclasses.dataclass(frozen=True)
class Published:
    """A pair of shipped files.

    Attributes:
        student, slim: paths below ``configs``; slim None trains the student alone.
        parts: names of all parts that the loss has beside the student's own.
        overrides: further ``-o``.
    """

    student: str
    slim: str | None
    parts: tuple = ()
    overrides: tuple = ()


def _levels(name, strides=PYRAMID, parts=()):
    labels = [f"{name}.s{stride}" for stride in strides]
    return tuple(f"{label}.{part}" for label in labels for part in parts) if parts else tuple(labels)


def _ppyoloe(student, slim, overrides=()):
    parts = ("logits.class", "logits.iou", "logits.dfl", "logits.kd", *_levels("feat", (32, 16, 8), FGD_PARTS))
    return Published(f"ppyoloe/{student}", f"slim/distill/ppyoloe_plus_distill_{slim}.yml", parts, overrides)


_CWD = _levels("cwd_neck")
# The levels that a two-stage detector's FPN computes; its last, stride 64, is cells of the one before.
_TWO_STAGE = _levels("fgd", (4, 8, 16, 32), FGD_PARTS)
_FASTER = "faster_rcnn/faster_rcnn_r50_fpn_2x_coco.yml"
RECIPES = {
    "yolov3": Published(
        "yolov3/yolov3_mobilenet_v1_270e_coco.yml",
        "slim/distill/yolov3_mobilenet_v1_coco_distill.yml",
        _levels("yolov3", (32, 16, 8), ("x", "y", "w", "h", "cls", "obj")),
    ),
    "retinanet_fgd": Published(
        "retinanet/retinanet_r50_fpn_2x_coco.yml",
        "slim/distill/retinanet_resnet101_coco_distill.yml",
        _levels("fgd", PYRAMID, FGD_PARTS),
    ),
    "retinanet_cwd": Published(
        "retinanet/retinanet_r50_fpn_2x_coco.yml", "slim/distill/retinanet_resnet101_coco_distill_cwd.yml", _CWD
    ),
    "gfl_cwd": Published(
        "gfl/gfl_r50_fpn_1x_coco.yml", "slim/distill/gfl_r101vd_fpn_coco_distill_cwd.yml", _CWD + _levels("cwd_cls")
    ),
    "gfl_fgd": Published(
        "gfl/gfl_r50_fpn_1x_coco.yml",
        "slim/distill/gfl_r101vd_fpn_coco_distill_fgd.yml",
        _levels("fgd", PYRAMID, FGD_PARTS),
    ),
    "gfl_ld": Published(
        "gfl/gfl_slim_ld_r18vd_1x_coco.yml", "slim/distill/gfl_ld_distill.yml", ("ld.main", "ld.vlr", "ld.kd")
    ),
    "gfl_alone": Published("gfl/gfl_slim_ld_r18vd_1x_coco.yml", None),
    "ppyoloe_l": _ppyoloe("distill/ppyoloe_plus_crn_l_80e_coco_distill.yml", "x_distill_l"),
    "ppyoloe_m": _ppyoloe("distill/ppyoloe_plus_crn_m_80e_coco_distill.yml", "l_distill_m"),
    "ppyoloe_s": _ppyoloe("distill/ppyoloe_plus_crn_s_80e_coco_distill.yml", "m_distill_s"),
    "ppyoloe_l_plain": _ppyoloe("ppyoloe_plus_crn_l_80e_coco.yml", "x_distill_l"),
    "ppyoloe_m_plain": _ppyoloe("ppyoloe_plus_crn_m_80e_coco.yml", "l_distill_m"),
    "ppyoloe_s_plain": _ppyoloe("ppyoloe_plus_crn_s_80e_coco.yml", "m_distill_s"),
    # From its static_assigner_epoch on PP-YOLOE assigns by prediction, and its distillation by the teacher's.
    "ppyoloe_s_by_teacher": _ppyoloe(
        "distill/ppyoloe_plus_crn_s_80e_coco_distill.yml", "m_distill_s", ("PPYOLOEHead.static_assigner_epoch=0",)
    ),
    "faster_rcnn_fgd": Published(_FASTER, "slim/distill/faster_rcnn_r101_fpn_coco_distill_fgd.yml", _TWO_STAGE),
    "mask_rcnn_fgd": Published(
        "mask_rcnn/mask_rcnn_r50_fpn_2x_coco.yml",
        "slim/distill/mask_rcnn_r101vd_fpn_coco_distill_fgd.yml",
        _TWO_STAGE,
    ),
    "fcos_fgd": Published(
        "fcos/fcos_r50_fpn_multiscale_2x_coco.yml",
        "slim/distill/fcos_dcn_r50_fpn_coco_distill_fgd.yml",
        _levels("fgd", PYRAMID, FGD_PARTS),
    ),
    "solov2_fgd": Published(
        "solov2/solov2_r50_fpn_1x_coco.yml", "slim/distill/solov2_r101vd_fpn_coco_distill_fgd.yml", _TWO_STAGE
    ),
    # The model resizes its batches itself, to 480 pixels and more.
    "yolox_fgd": Published(
        "yolox/yolox_m_300e_coco.yml",
        "slim/distill/yolox_l_coco_distill_fgd.yml",
        _levels("fgd", (8, 16, 32), FGD_PARTS),
        (f"YOLOX.input_size=[{SIZE}, {SIZE}]", f"YOLOX.size_range=[{SIZE // 32}, {SIZE // 32}]"),
    ),
    # Teachers of another architecture.
    "faster_rcnn_from_cascade": Published(
        _FASTER, "slim/distill/faster_rcnn_from_cascade_r50vd_coco_fgd.yml", _TWO_STAGE
    ),
    "retinanet_from_faster_rcnn": Published(
        "retinanet/retinanet_r50_fpn_2x_coco.yml",
        "slim/distill/retinanet_from_faster_rcnn_r101_coco_pkd.yml",
        _levels("pkd", (8, 16, 32, 64)),
    ),
    "picodet_from_gfl": Published(
        "picodet/picodet_s_320_coco_lcnet.yml",
        "slim/distill/picodet_from_gfl_r101vd_coco_cwd.yml",
        _levels("cwd_neck", (8, 16, 32, 64)),
    ),
    # Terms of their own.
    "retinanet_mgd": Published(
        "retinanet/retinanet_r50_fpn_2x_coco.yml",
        "slim/distill/retinanet_resnet101_coco_distill_mgd.yml",
        _levels("mgd"),
        ("distill.lambda_mgd=0.3",),  # of two by two cells a mask of 0.65 may drop all
    ),
    "retinanet_matching": Published(
        "retinanet/retinanet_r18_fpn_1x_coco.yml",
        "slim/distill/retinanet_r50_coco_distill_matching.yml",
        _levels("matching", (4, 8, 16, 32)),
    ),
    "retinanet_matching_vd": Published(
        "retinanet/retinanet_r18vd_fpn_1x_coco.yml",
        "slim/distill/retinanet_r50_coco_distill_matching.yml",
        _levels("matching", (4, 8, 16, 32)),
    ),
    "ppyoloe_m_rtmdet": Published(
        "ppyoloe/ppyoloe_plus_crn_m_80e_coco.yml",
        "slim/distill/ppyoloe_plus_distill_l_distill_m_rtmdet.yml",
        _levels("neck", (32, 16, 8)),
    ),
    "picodet_rtmdet": Published(
        "picodet/picodet_s_320_coco_lcnet.yml",
        "slim/distill/picodet_l_distill_s_rtmdet.yml",
        _levels("neck", (8, 16, 32, 64)),
    ),
    "rtmdet_tiny": Published(
        "rtmdet/rtmdet_tiny_300e_coco.yml", "slim/distill/rtmdet_s_distill_tiny.yml", _levels("neck", (8, 16, 32))
    ),
    "rtmdet_s": Published(
        "rtmdet/rtmdet_s_300e_coco.yml", "slim/distill/rtmdet_m_distill_s.yml", _levels("neck", (8, 16, 32))
    ),
    "rtmdet_m": Published(
        "rtmdet/rtmdet_m_300e_coco.yml", "slim/distill/rtmdet_l_distill_m.yml", _levels("neck", (8, 16, 32))
    ),
    "rtmdet_l": Published(
        "rtmdet/rtmdet_l_300e_coco.yml", "slim/distill/rtmdet_x_distill_l.yml", _levels("neck", (8, 16, 32))
    ),
    "gfl_crosskd": Published(
        "gfl/gfl_r50_fpn_1x_coco.yml", "slim/distill/gfl_r101vd_fpn_coco_crosskd.yml", ("cls", "box")
    ),
    "retinanet_two_teachers": Published(
        "retinanet/retinanet_r50_fpn_2x_coco.yml",
        "slim/distill/retinanet_from_two_teachers_coco_pkd.yml",
        _levels("neck.retinanet") + _levels("neck.faster_rcnn", (8, 16, 32, 64)),
    ),
    "cascade_rcnn_alone": Published("cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco.yml", None),
    "tood_alone": Published("tood/tood_r50_fpn_1x_coco.yml", None),
}
_POINTS = ("reppoints_moment_r50_fpn_gn-neck+head_2x_coco", "reppoints_moment_r101_fpn_gn-neck+head_2x_coco")
# FGD's authors' own, on MMDetection's detectors: recipe -> student.
OF_FGD = {
    "retina_rx101_64x4d_distill_retina_r50_fpn_2x_coco": "retinanet_r50_fpn_2x_coco",
    "retina_rx101_64x4d_distill_retina_r101_fpn_2x_coco": "retinanet_r101_fpn_2x_coco",
    "retina_r101_fpn_2x_distill_retina_r50_fpn_2x_coco": "retinanet_r50_fpn_2x_coco",
    "cascade_mask_rcnn_rx101_32x4d_distill_faster_rcnn_r50_fpn_2x_coco": "faster_rcnn_r50_fpn_2x_coco",
    "cascade_mask_rcnn_rx101_32x4d_distill_faster_rcnn_r101_fpn_2x_coco": "faster_rcnn_r101_fpn_2x_coco",
    "cascade_mask_rcnn_rx101_32x4d_distill_mask_rcnn_r50_fpn_2x_coco": "mask_rcnn_r50_fpn_2x_coco",
    "faster_rcnn_r101_fpn_2x_distill_faster_rcnn_r50_fpn_2x_coco": "faster_rcnn_r50_fpn_2x_coco",
    "mask_rcnn_r101_fpn_distill_mask_rcnn_r50_fpn_2x_coco": "mask_rcnn_r50_fpn_2x_coco",
    "reppoints_rx101_64x4d_distill_reppoints_r50_fpn_2x_coco": _POINTS[0],
    "reppoints_rx101_64x4d_distill_reppoints_r101_fpn_2x_coco": _POINTS[1],
    "reppoints_r101_fpn_distill_reppoints_r50_fpn_2x_coco": _POINTS[0],
    "fcos_r101_distill_fcos_r50_2x_coco": "fcos_center-normbbox-giou_r50_caffe_fpn_gn-head_mstrain_1x_coco",
    "gfl_r101_distill_gfl_r50_fpn_1x_coco": "gfl_r50_fpn_1x_coco",
    "solo_r101_ms_distill_solo_r50_coco": "solo_r50_fpn_1x_coco",
}
for _slim, _student in OF_FGD.items():
    _four = "rcnn" in _slim or "solo" in _slim
    RECIPES[f"fgd_{_slim}"] = Published(
        f"mmdet/mmdet_{_student}.yml", f"slim/distill/fgd_{_slim}.yml",
        _TWO_STAGE if _four else _levels("fgd", PYRAMID, FGD_PARTS),
    )  # fmt: skip


def main():
    args = parse()
    if args.inside:
        return inside(args)
    with tempfile.TemporaryDirectory() as scratch:
        records = []
        for name in args.names or RECIPES:
            begin = time.time()
            record = in_a_process(name, scratch, args)
            records.append(record)
            show(record, time.time() - begin)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(records, file, indent=1)
    failed = [record["name"] for record in records if record["problems"]]
    print(f"\n{len(records) - len(failed)} of {len(records)} recipes as expected", *failed)
    return 1 if failed else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"recipes, of {', '.join(RECIPES)}; default all")
    parser.add_argument("--json", help="write everything that was measured into this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in RECIPES]
    if unknown:
        parser.error(f"no recipe {unknown[0]}; there are {', '.join(RECIPES)}")
    return args


def in_a_process(name, scratch, args):
    """The record of one recipe, or one with the process's last line as the only problem."""
    command = [sys.executable, os.path.abspath(__file__), name, "--inside", scratch, "--seed", str(args.seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    path = os.path.join(scratch, f"{name}.json")
    if done.returncode or not os.path.exists(path):
        print(done.stderr, file=sys.stderr)
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"name": name, "problems": [f"the process ended with {done.returncode}: {reason}"]}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def inside(args):
    """One recipe in this process; leaves its record in the folder ``args.inside``."""
    (name,) = args.names
    record = run(name, args.inside, args.seed)
    with open(os.path.join(args.inside, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(record, file)
    return 0


def show(record, seconds):
    from ppkd.engine.balance import Pull, table

    print(f"\n== {record['name']}: {'; '.join(record['problems']) or 'as expected'} ({duration(seconds)})")
    for index, losses in enumerate(record.get("steps", ())):
        total = losses["loss"]
        print(f"step {index + 1}: loss {total:.4g}, {record['seconds'][index]:.2f} s")
    if record.get("pulls"):
        print(table([Pull(**pull) for pull in record["pulls"]]))
    sys.stdout.flush()


def run(name, folder, seed=0):
    """Train a recipe for `STEPS` steps and measure the first batch.

    Args:
        name: key of `RECIPES`.
        folder: for data, weights and output.
        seed: of weights and batches.

    Returns:
        Dict: ``name``; ``steps``, the losses of each; ``seconds`` of each; ``pulls``, `balance.Pull` as dicts;
        ``problems``, lines of text.
    """
    from ppkd.engine.balance import measure
    from ppkd.training.trainer import Trainer

    recipe = prepared(name, folder, seed)
    with Trainer.open(recipe, max_steps=STEPS) as trainer:
        pulls = []
        if trainer.distill is not None:
            batch = next(trainer.loader.epoch(0))
            batch["epoch_id"] = 0
            pulls = [dataclasses.asdict(pull) for pull in measure(trainer.distill, batch)]
        before = {key: value.numpy() for key, value in trainer.student.state_dict().items()}
        trainer.run()
        moved = any((value.numpy() != before[key]).any() for key, value in trainer.student.state_dict().items())
    steps, seconds = read_metrics(recipe)
    shutil.rmtree(recipe.output_dir)  # checkpoints are large
    record = {"name": name, "steps": steps, "seconds": seconds, "pulls": pulls}
    return {**record, "problems": problems(record, RECIPES[name].parts) + ([] if moved else ["no weight has moved"])}


def problems(record, expected):
    """What is missing, unexpected, not finite or zero in a record, as lines of text; `expected` names the parts."""
    found = []
    if len(record["steps"]) != STEPS:
        found.append(f"{len(record['steps'])} steps instead of {STEPS}")
    for index, losses in enumerate(record["steps"], 1):
        found += [f"step {index}: {key} is {value}" for key, value in losses.items() if not math.isfinite(value)]
        found += [f"step {index}: {part} is missing" for part in expected if part not in losses]
    # Objects may cover every cell of a coarse map in one batch: what FGD calls background is 0 in that step.
    found += [f"{part} is 0 in every step" for part in expected if all(x.get(part) == 0 for x in record["steps"])]
    measured = {pull["name"]: pull for pull in record["pulls"]}
    for part in expected:
        norm = measured.get(part, {}).get("norm", 0.0)
        if not (norm and math.isfinite(norm)):
            found.append(f"{part}: the student's gradient is {norm}")
    found += [f"{part}: nobody expects it" for part in measured if part not in (*expected, "detection")]
    return found


def read_metrics(recipe):
    """Losses and seconds of every step from a run's ``metrics.jsonl``."""
    with open(os.path.join(recipe.output_dir, "metrics.jsonl"), encoding="utf-8") as file:
        records = [record for record in map(json.loads, file) if record["kind"] == "train"]
    steps = [{k: v for k, v in r.items() if isinstance(v, float) and not _is_no_loss(k)} for r in records]
    return steps, [r["seconds_per_step"] for r in records]


def _is_no_loss(key):
    return key in ("lr", "images_per_second") or key.startswith("seconds") or key.endswith("seconds")


def prepared(name, folder, seed=0):
    """A recipe on generated images of `SIZE` pixels, two a step, with calibrated random weights for both detectors."""
    data = os.path.join(folder, "shapes")
    if not os.path.isdir(data):
        from ppkd.data.shapes import generate

        generate(data, train=12, val=2, size=SIZE, seed=0)
    recipe = reduced(name, data, folder, seed)
    weights = make_all_weights(recipe, folder, seed)
    return reduced(name, data, folder, seed, [f"{key}={path}" for key, path in weights.items()])


def reduced(name, data, folder, seed=0, more=()):
    """A recipe as shipped but for its data: small images of `data`, two a step, in this process.

    Args:
        name: key of `RECIPES`.
        data: folder of a generated data set.
        folder: for the output.
        seed: of the run.
        more: further overrides.
    """
    from ppkd.recipe.recipe import load_recipe

    published = RECIPES[name]
    files = [path and os.path.join(ROOT, "configs", path) for path in (published.student, published.slim)]
    shipped = load_recipe(*files)
    reader = shipped.student["TrainReader"]
    given = [f"TrainReader.{key}={dump(shrunk(reader[key]))}" for key in ("sample_transforms", "batch_transforms")]
    for split in ("Train", "Eval"):
        kind = split.lower().replace("eval", "val")
        given += [
            f"{split}Dataset.dataset_dir={data}",
            f"{split}Dataset.image_dir={kind}",
            f"{split}Dataset.anno_path=annotations/instances_{kind}.json",
        ]
    given += ["TrainReader.batch_size=2", "worker_num=0", "use_gpu=false", "log_iter=1", f"save_dir={folder}/{name}"]
    return load_recipe(*files, [*given, f"seed={seed}", *published.overrides, *more])


def shrunk(value):
    """A reader's transforms with all sizes of images made `SIZE`, and twice that for a long side."""
    if isinstance(value, list):
        return [shrunk(item) for item in value]
    if isinstance(value, dict):
        sizes = ("target_size", "input_dim", "size")
        return {key: _small(item) if key in sizes else shrunk(item) for key, item in value.items()}
    return value


def _small(size):
    """``[640]`` and ``[320, .., 768]`` are lists of sizes, ``[800, 1333]`` a short and a long side, or lists of it.

    ``640`` and ``[640, 640]`` are the two sides of a square.
    """
    if isinstance(size, int):
        return SIZE
    if isinstance(size[0], list):
        return [[SIZE, 2 * SIZE]]
    known = {(800, 1333): [SIZE, 2 * SIZE], (640, 640): [SIZE, SIZE], (1280, 1280): [2 * SIZE, 2 * SIZE]}
    return known.get(tuple(size), [SIZE])


def make_all_weights(recipe, folder, seed):
    """Weight files for the student and its teachers: ``-o`` key -> path."""
    from benchmarks.models.random_weights import make_weights
    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import create, scope
    from ppkd.training.loader import TrainLoader

    configs = {"pretrain_weights": recipe.student}
    for name, spec in recipe.teachers.items():
        configs[f"{'' if name == TEACHER else 'distill.teachers.'}{name}.pretrain_weights"] = spec.config
    with scope(recipe.student):
        loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", recipe.student), 0, seed)
        batches = list(loader.epoch(0))[:3]
    for batch in batches:
        batch["epoch_id"] = 0
    os.makedirs(recipe.output_dir)
    paths = {}
    for index, (key, config) in enumerate(configs.items()):
        paths[key] = os.path.join(recipe.output_dir, f"{key}.pdparams")
        # A reader may have assigned the targets, which another architecture cannot read.
        own_kind = config["architecture"] == recipe.student["architecture"]
        make_weights(config, batches, paths[key], seed + 1 + index, own_kind)
    return paths


if __name__ == "__main__":
    sys.exit(main())
