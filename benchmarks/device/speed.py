"""Times, memory and launches beside their targets: the rows of ``benchmarks/run.py``."""

import os

from benchmarks import run
from benchmarks.device.lines import FAILED, MISSED, NOT_HERE, NOT_ON_CPU, OK, Line, tried
from benchmarks.device.pairs import Room

# Groups of benchmarks/run.py that are worth their time on a device.
GROUPS = (
    "loss_fgd", "loss_cwd", "loss_ld", "step_ppyoloe_l_to_m", "step_gfl_ld", "step_gfl_cwd", "step_retinanet_fgd",
    "step_yolov3", "step_memory",
)  # fmt: skip


def rows(args, name):
    """The lines of one group."""
    if args.device == "cpu":
        said = "docs/performance.md has the CPU's, measured by benchmarks/run.py"
        return [tried(f"rows {name}", lambda: (NOT_ON_CPU, said, {}))]
    module = next(module for module, names in run.MODULES.items() if name in names)
    return [_line(row) for row in run.in_a_process(module, name)]


# What a step may launch on a GPU, by parts; of the first pair, and of the terms of others by level.
LAUNCHES = {"terms": 450, "wrapper": 40, "average": 60, "skip": 20}
PAIRS = {("retinanet", "fgd"): ("FGD's terms, a level", 60), ("gfl", "ld"): ("LD's terms", 250)}


def launches(args):
    """What a step launches, beside the targets; counted on the host, so that a CPU shows it too."""
    yield tried("launches ppyoloe ppyoloe", _launches, args)
    for pair, (what, most) in PAIRS.items():
        if args.smallest:
            said = "left out at the smallest size: tests/engine/test_launches.py counts them"
            yield tried(f"launches {' '.join(pair)}", lambda said=said: (NOT_HERE, said, {}))
        else:
            yield tried(f"launches {' '.join(pair)}", _of_terms, args, pair, what, most)
    yield tried("waits", _waits, args)


def _built(args, pair):
    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import create, scope
    from ppkd.build import build_model
    from ppkd.training.loader import TrainLoader

    recipe = Room(args.folder, args.device).recipe(*pair, "launches")
    with scope(recipe.student):
        loader = TrainLoader(create("TrainReader"), open_dataset("TrainDataset", recipe.student), 0, 0)
        batch = {**next(loader.epoch(0)), "epoch_id": 0}
    return build_model(recipe), batch


def _launches(args):
    from benchmarks.engine.launches import Parts

    found = Parts(*_built(args, ("ppyoloe", "ppyoloe"))).count()
    targets = {name: f" (target: at most {most})" for name, most in LAUNCHES.items()}
    told = ", ".join(f"{name} {count}{targets.get(name, '')}" for name, count in found.items())
    return OK if all(found[name] <= most for name, most in LAUNCHES.items()) else MISSED, told, found


def _of_terms(args, pair, what, most):
    from benchmarks.engine.launches import Parts
    from benchmarks.study.launches import launches as counted

    model, batch = _built(args, pair)
    parts = Parts(model, batch)
    plain, teacher, whole = (counted(part) for part in (parts.plain, parts.teacher, parts.whole))
    each = (whole - plain - teacher) / (len(model.terms) if "level" in what else 1)
    numbers = {"plain": plain, "teacher": teacher, "each": each}
    return OK if each <= most else MISSED, f"{what}: {each:.0f} (target: at most {most})", numbers


def _waits(args):
    """The host waits for the device nowhere in a distilled step but where the student's own does."""
    try:
        from tests.engine.test_synchronisation import beyond_the_student
    except ImportError as error:
        return NOT_HERE, f"pytest is needed for it ({error})", {}
    found = beyond_the_student(*_built(args, ("ppyoloe", "ppyoloe")))
    told = ", ".join(f"{name} in {os.path.basename(file)}:{line}" for name, file, line in found) or "none"
    return not found, f"beyond the student's own: {told} (target: none)", {"waits": sum(found.values())}


def _line(row):
    numbers = {key: getattr(row, key) for key in ("ours_s", "ppdet_s", "ideal_s", "ratio", "ours_mb", "ppdet_mb")}
    verdict = FAILED if row.note.startswith("failed") else MISSED if row.met is False else OK
    measured = "" if row.ratio is None else f"{row.ratio:.4g} (target: {row.target or 'none'})"
    return Line(row.name, verdict, ", ".join(x for x in (measured, row.note) if x), numbers)
