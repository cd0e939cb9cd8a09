#!/usr/bin/env python3
"""Try every detector of ppdet with a neck on this Paddle, and write what works into docs/support.md.

    python tools/support_table.py [NAME ...]

For each detector, with the small configs of the tests and a generated data set: train, distil (FGD on the neck, CWD on
neck and logits, where they are known; the loss of sets of predictions where those are what it has), evaluate, infer,
and export (Paddle Inference has to give what the detector gives). Every detector is a process of its own. The results
of this Paddle and this ppdet, the wheel or a commit of a clone, replace their part of docs/support.json; the others'
stay, and the table is made of all of them. `make support` runs both supported versions of Paddle with the wheel;
`PYTHONPATH=path/to/PaddleDetection` in front takes that clone, with what only clones have. The exit code is 1 if
anything failed.
"""

# ruff: noqa: E402
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from ppkd import cli, commands
from ppkd.bridge.host import versions
from ppkd.files.yaml_io import dump
from ppkd.terminal.log import duration

# Name of the test config -> name in the table.
DETECTORS = {
    "retinanet": "RetinaNet", "fcos": "FCOS", "gfl": "GFL", "picodet": "PicoDet, first head",
    "picodet_v2": "PicoDet, released head", "tood": "TOOD", "ppyoloe": "PP-YOLOE",
    "yolov3": "YOLOv3", "yolox": "YOLOX", "faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN",
    "cascade_rcnn": "Cascade R-CNN", "solov2": "SOLOv2", "rtmdet": "RTMDet",
    "reppoints": "RepPoints", "solo": "SOLO", "yolof": "YOLOF", "centernet": "CenterNet", "detr": "DETR",
    "deformable_detr": "Deformable DETR", "dino": "DINO", "ttfnet": "TTFNet", "ssd": "SSD",
    "sparse_rcnn": "Sparse R-CNN", "queryinst": "QueryInst",
}  # fmt: skip
# What the wheel of ppdet does not have.
OF_CLONES = {
    "ppyoloe_seg": "PP-YOLOE-seg", "rtdetr": "RT-DETR", "rtdetrv2": "RT-DETRv2", "mask_rtdetr": "Mask-RT-DETR",
}  # fmt: skip
TASKS = ("train", "distil", "eval", "infer", "export")
CONFIGS = os.path.join(ROOT, "tests", "configs")
RESULTS, PAGE = (os.path.join(ROOT, "docs", name) for name in ("support.json", "support.md"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"some of {', '.join(DETECTORS | OF_CLONES)}; all by default"
    )
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.names) - set(DETECTORS | OF_CLONES)
    if unknown:
        parser.error(f"no such detector: {', '.join(sorted(unknown))}; known: {', '.join(DETECTORS | OF_CLONES)}")
    if args.inside:
        return inside(args.names[0], args.inside)
    host, found, begin = host_of(versions()), {}, time.time()
    names = args.names or list(detectors_of(host))
    print(f"Paddle {host}: {len(names)} detectors", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        from ppkd.data.shapes import generate

        generate(os.path.join(folder, "data"), train=8, val=4, size=64)
        for done, name in enumerate(names):
            found[name] = outside(name, folder)
            cells = "  ".join(f"{task} {'yes' if cell['ok'] else 'NO'}" for task, cell in found[name].items())
            left = (time.time() - begin) / (done + 1) * (len(names) - done - 1)
            print(f"{name}: {cells}  ({duration(left)} left)", flush=True)
    results = read_results()
    kept = results.get(host, {})
    results[host] = {name: found.get(name) or kept.get(name) for name in detectors_of(host)}
    write_results(results)
    for name, cells in found.items():
        for task, cell in cells.items():
            if not cell["ok"]:
                print(f"{name} {task}: {cell['error']}", file=sys.stderr)
    return int(not all(cell["ok"] for cells in found.values() for cell in cells.values()))


def host_of(versions):
    """What a column of results is of, for example ``2.6.2`` or, of a clone, ``2.6.2, clone 666f597f``."""
    ppdet, paddle = versions["paddledet"], versions["paddle"]
    return f"{paddle}, {ppdet.replace(', commit', '')}" if ppdet.startswith("clone") else paddle


def detectors_of(host):
    """Name of a test config -> name in the table, of a host as `host_of` has it."""
    return DETECTORS | (OF_CLONES if "clone" in host else {})


def outside(name, folder):
    """Run `inside` in a process of its own, which a defect of Paddle may end; returns task -> cell."""
    command = [sys.executable, os.path.abspath(__file__), name, "--inside", folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    cells = {task: {"ok": False, "error": f"the process ended with {process.returncode}"} for task in TASKS}
    for line in process.stdout.splitlines():
        if line.startswith("CELL "):
            task, cell = json.loads(line[5:])
            cells[task] = cell
    return cells


def inside(name, folder):
    """Try all tasks of one detector and print a line for each."""
    run = Run(name, folder)
    for task in TASKS:
        try:
            getattr(run, task)()
            cell = {"ok": True}
        except BaseException as error:
            traceback.print_exc()
            cell = {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"}
        print("CELL " + json.dumps([task, cell]), flush=True)
    return 0


class Run:
    """The tools' commands on one detector.

    Args:
        name: key of `DETECTORS`.
        folder: has the data set in ``data``; all that is made goes there.
    """

    def __init__(self, name, folder):
        self.name = name
        self.folder = os.path.join(folder, name)
        from tests.helpers_hosts import renamed

        self.options = [f"dataset_dir={folder}/data", f"save_dir={self.folder}", *renamed(name)]
        self.config = os.path.join(CONFIGS, f"{name}_tiny.yml")
        self.weights = f"weights={self.folder}/{name}_tiny/model_final.pdparams"
        self.image = os.path.join(folder, "data", "val", "000001.jpg")

    def train(self):
        for kind in ("wide", "tiny"):
            config = os.path.join(CONFIGS, f"{self.name}_{kind}.yml")
            commands.train(cli.train_parser().parse_args(["-c", config, "-o", "epoch=1", *self.options]))

    def distil(self):
        from ppkd.build import build_student
        from ppkd.detectors import detector_for
        from ppkd.recipe.recipe import load_recipe

        detector = detector_for(build_student(load_recipe(self.config, None, self.options)))
        logits = [source for source in ("head.cls", "head.objectness") if detector.offers(source)]
        sets = [f"decoder.{name}[*]" for name in ("cls", "box") if detector.offers(f"decoder.{name}")]
        self._distil("FGD", {"slim_method": "FGD", "distill_loss": "FGDFeatureLoss", "FGDFeatureLoss": {"temp": 0.5}})
        if sets:
            return self._distil_terms({"student": sets, "loss": "detr_match"})
        losses = {"distill_loss": "CWDFeatureLoss", "CWDFeatureLoss": {"places": ["neck", *logits]}}
        return self._distil("CWD", {"slim_method": "CWD", **losses})

    def _distil_terms(self, term):
        self._distil("terms", {"distill": {"terms": {"distilled": term}}})

    def _distil(self, name, section):
        slim = os.path.join(self.folder, f"{name}.yml")
        teacher = f"{self.folder}/{self.name}_wide/model_final.pdparams"
        content = {"_BASE_": [os.path.join(CONFIGS, f"{self.name}_wide.yml")], "slim": "Distill"}
        with open(slim, "w", encoding="utf-8") as file:
            file.write(dump({**content, **section}))
        options = ["epoch=1", f"teacher.pretrain_weights={teacher}", *self.options, f"save_dir={self.folder}/distilled"]
        commands.train(cli.train_parser().parse_args(["-c", self.config, "--slim_config", slim, "-o", *options]))
        log = os.path.join(self.folder, "distilled", f"{self.name}_tiny", "metrics.jsonl")
        with open(log, encoding="utf-8") as file:
            logged = json.loads(file.readlines()[-1])
        terms = [key for key in logged if key.startswith((name.lower(), "distilled"))]
        assert terms, "no distillation term was logged"

    def eval(self):
        arguments = ["-c", self.config, "--json", f"{self.folder}/results.json", "-o", self.weights, *self.options]
        results = commands.evaluate(cli.eval_parser().parse_args(arguments))
        assert {"AP", "mask_AP"} & set(results), f"no AP in {results}"

    def infer(self):
        output = os.path.join(self.folder, "drawn")
        arguments = ["-c", self.config, "--infer_img", self.image, "--output_dir", output, "--draw_threshold", "0.0"]
        arguments += ["--save_results", "true", "-o", self.weights, *self.options]
        commands.infer(cli.infer_parser().parse_args(arguments))
        assert os.path.isfile(os.path.join(output, os.path.basename(self.image))), "nothing was drawn"
        found = [name for name in ("bbox.json", "segm.json", "mask.json") if os.path.isfile(os.path.join(output, name))]
        assert found, f"no detections were written, only {os.listdir(output)}"

    def export(self):
        output = os.path.join(self.folder, "exported")
        arguments = ["-c", self.config, "--output_dir", output, "-o", self.weights, *self.options]
        commands.export(cli.export_parser().parse_args(arguments))
        import paddle

        from ppkd.bridge.weights import load_exactly
        from ppkd.bridge.workspace import scope
        from ppkd.build import build_student
        from ppkd.recipe.recipe import load_recipe
        from tests.helpers_export import assert_equal, dynamic_outputs, evaluation_batch, infer, open_predictor

        loaded = load_recipe(self.config, None, [*self.options, "EvalReader.batch_size=1"])
        model = build_student(loaded)
        load_exactly(model, self.weights.partition("=")[2], "weights")
        model.eval()
        with scope(loaded.student):
            batch = evaluation_batch(loaded)
        found = infer(open_predictor(os.path.join(output, f"{self.name}_tiny")), batch)
        with paddle.no_grad():
            assert_equal(found, dynamic_outputs(model, batch))


def read_results():
    try:
        with open(RESULTS, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def write_results(results):
    with open(RESULTS, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1, sort_keys=True)
        file.write("\n")
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(page(results))


def page(results):
    """The table as markdown.

    Args:
        results: host, as `host_of` has it -> detector -> task -> ``{"ok": bool, "error": text}``.
    """
    lines = [
        "# What works",
        "",
        "Made by `make support` (`python tools/support_table.py` on each Paddle); not to be edited by hand. Where no "
        "clone of PaddleDetection is named it is the wheel's ppdet 2.6.0. Each cell "
        "is a run of the tools on a small model: train; distil with FGD on the neck and CWD on neck and logits (of "
        "DETR and its kin `detr_match` on the sets of predictions); evaluate; infer; export, where Paddle Inference "
        "has to give what the detector gives within 1e-4. What the test suite gave on clones: [hosts.md](hosts.md).",
        "",
        f"| detector | Paddle | {' | '.join(TASKS)} |",
        f"| --- | --- |{' --- |' * len(TASKS)}",
    ]
    errors = []
    for name, title in (DETECTORS | OF_CLONES).items():
        for host in (host for host in sorted(results) if name in detectors_of(host)):
            cells = results[host].get(name) or {}
            marks = []
            for task in TASKS:
                cell = cells.get(task)
                marks.append("not run" if cell is None else "yes" if cell["ok"] else "**no**")
                if cell is not None and not cell["ok"]:
                    errors.append(f"- {title}, Paddle {host}, {task}: `{cell['error']}`")
            lines.append(f"| {title} | {host} | {' | '.join(marks)} |")
    return "\n".join([*lines, *(["", *errors] if errors else [])]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
