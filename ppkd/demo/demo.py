"""The demo: a synthetic data set, a teacher, the same student without and with the teacher, one table, one picture."""

import json
import os
import shutil
import statistics
import subprocess
import time

from ppkd.course.process import environment, ppkd, start, tail
from ppkd.errors import UserError
from ppkd.files.shipped import shipped
from ppkd.files.write import write_text
from ppkd.terminal.log import duration, logger

# By name, as part of the package: the demo runs in any folder.
TEACHER_CONFIG = "ppyoloe_plus_teacher_shapes"
STUDENT_CONFIG = "ppyoloe_plus_student_shapes"
SLIM_CONFIG = "ppyoloe_plus_shapes_fgd"
SHIPPED_TEACHER = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data/teacher_shapes.pdparams"
)
DATA = {"train": 1200, "val": 200, "size": 224, "seed": 0}
INPUT_SIZE = (192, 192)
# So that two runs share a small machine fairly.
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
RESULT_KEYS = ("AP", "AP50", "APs", "APm", "APl", "params", "gflops", "ms_per_image", "train_seconds")


def run(teacher="shipped", output="output/demo", seed=0, data_dir="dataset/shapes", data=None, max_steps=None):
    """Run the whole demo.

    Args:
        teacher: ``shipped``, ``train``, or the path of its weights.
        output: folder for everything the demo makes.
        seed: seed of both students.
        data_dir: where the data set is, or will be, generated.
        data: parameters of `data.shapes.generate`; default `DATA`.
        max_steps: end the students' training after so many steps.

    Returns:
        Path of ``results.json``: for ``teacher``, ``plain``, ``distilled`` the keys `RESULT_KEYS`.

    Raises:
        UserError: a run failed, a file is missing or not writable.
    """
    begin = time.time()
    os.makedirs(output, exist_ok=True)
    _make_data(data_dir, data or DATA)
    options = [f"dataset_dir={os.path.abspath(data_dir)}"]
    weights = {"teacher": _teacher_weights(teacher, output, options)}
    runs = {
        name: Run(name, os.path.join(output, name), seed, options, weights["teacher"], max_steps)
        for name in ("plain", "distilled")
    }
    logger().info("training two students side by side: one alone, one with the teacher")
    _watch(runs.values())
    weights |= {name: one.weights for name, one in runs.items()}
    results = {name: _evaluate(name, weights[name], output, options) for name in weights}
    for name, one in runs.items():
        results[name]["train_seconds"] = round(one.seconds, 1)
    results["teacher"]["train_seconds"] = _teacher_seconds(teacher, output)
    _measure(results, weights, options)
    path = os.path.join(output, "results.json")
    found = {name: {k: row.get(k) for k in RESULT_KEYS} for name, row in results.items()}
    write_text(path, json.dumps(found, indent=1))
    _show(results, runs, output, data_dir)
    logger().info("demo done in %s", duration(time.time() - begin))
    return path


class Run:
    """One student's training in a process of its own, with one thread, so that two share a small machine fairly."""

    def __init__(self, name, folder, seed, options, teacher, max_steps=None):
        self.name, self.folder = name, os.path.join(folder, "ppyoloe_plus_student_shapes")
        self.weights = os.path.join(self.folder, "model_final.pdparams")
        self._metrics = os.path.join(self.folder, "metrics.jsonl")
        for old in (self._metrics, self.weights):
            if os.path.exists(old):
                os.remove(old)
        command = ["train", "-c", shipped(STUDENT_CONFIG), "--eval"]
        command += ["--max_steps", str(max_steps)] if max_steps else []
        options = [*options, f"save_dir={os.path.abspath(folder)}", f"seed={seed}"]
        if name == "distilled":
            command += ["--slim_config", shipped(SLIM_CONFIG)]
            options += [f"teacher.pretrain_weights={os.path.abspath(teacher)}"]
        self._begin = time.time()
        self._process = start([*command, "-o", *options], os.path.join(folder, "log.txt"), _ONE_THREAD)
        self._log = os.path.join(folder, "log.txt")
        self.seconds = 0.0

    def records(self):
        """What the run has written to its ``metrics.jsonl`` so far."""
        if not os.path.exists(self._metrics):
            return []
        with open(self._metrics, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def finished(self):
        """Whether the process has ended.

        Raises:
            UserError: it failed; the message ends with its last lines.
        """
        code = self._process.poll()
        if code is None:
            return False
        self.seconds = self.seconds or time.time() - self._begin
        if code:
            raise UserError(f"the {self.name} student's training failed (exit {code}):\n{tail(self._log)}")
        return True

    def stop(self):
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()

    def left(self):
        """Seconds left by the run's own estimate, or None before its first log line."""
        train = [r for r in self.records() if r["kind"] == "train"]
        return train[-1]["seconds_left"] if train else None

    def curve(self):
        """List of (epoch, AP)."""
        return [(r["epoch"], r["AP"]) for r in self.records() if r["kind"] == "eval"]


def _watch(runs):
    """Wait for all runs, with a line of progress every few seconds."""
    runs, shown = list(runs), 0.0
    try:
        while sum(one.finished() for one in runs) < len(runs):  # asks all of them: any may have failed
            time.sleep(0.5)
            if time.time() - shown > 15:
                shown = time.time()
                logger().info("  ".join(_progress(one) for one in runs))
    finally:
        for one in runs:
            one.stop()


def _progress(one):
    records = one.records()
    if not records:
        return f"{one.name}: starting"
    left = one.left()
    curve = one.curve()
    ap = f", AP {100 * curve[-1][1]:.1f} after epoch {curve[-1][0]}" if curve else ""
    state = "done" if one.finished() else f"{duration(left)} left" if left is not None else "starting"
    return f"{one.name}: step {records[-1]['step']}, {state}{ap}"


def _make_data(folder, data):
    from ppkd.data.shapes import generate, is_complete

    if is_complete(folder, **data):
        logger().info("data: %s is there already", folder)
        return
    logger().info("data: making %d images in %s", data["train"] + data["val"], folder)
    marks = {}

    def progress(done, total):
        if done * 4 // total > marks.setdefault("quarter", 0):
            marks["quarter"] = done * 4 // total
            logger().info("data: %d of %d images", done, total)

    try:
        generate(folder, progress=progress, **data)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error


def _teacher_weights(teacher, output, options):
    if teacher == "shipped":
        return SHIPPED_TEACHER
    if teacher != "train":
        if not os.path.isfile(teacher):
            raise UserError(f"--teacher {teacher}: give shipped, train, or the path of the teacher's weights")
        return teacher
    folder = os.path.join(output, "teacher")
    weights = os.path.join(folder, "ppyoloe_plus_teacher_shapes", "model_final.pdparams")
    if os.path.exists(weights):
        logger().info("teacher: %s is there already", weights)
        return weights
    logger().info("teacher: training it, which takes longer than the rest of the demo")
    command = ppkd("train", "-c", shipped(TEACHER_CONFIG), "--eval", "-o", *options)
    if subprocess.call([*command, f"save_dir={os.path.abspath(folder)}"], env=environment()):
        raise UserError("the teacher's training failed; its messages stand above")
    return weights


def _teacher_seconds(teacher, output):
    """Seconds that training the teacher took, on one thread; None for a teacher that came from elsewhere."""
    if teacher == "shipped":
        with open(os.path.splitext(SHIPPED_TEACHER)[0] + ".json", encoding="utf-8") as file:
            return json.load(file)["train_seconds"]
    path = os.path.join(output, "teacher", "ppyoloe_plus_teacher_shapes", "metrics.jsonl")
    if teacher != "train" or not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    steps = [r["seconds_per_step"] for r in records if r["kind"] == "train"]
    return round(statistics.median(steps) * records[-1]["step"], 1)


def _config(name):
    return shipped(TEACHER_CONFIG if name == "teacher" else STUDENT_CONFIG)


def _evaluate(name, weights, output, options):
    logger().info("evaluating: %s", name)
    folder = os.path.join(output, "detections", name)
    shutil.rmtree(folder, ignore_errors=True)  # detections of an earlier run are not this one's
    os.makedirs(folder)
    results, log = os.path.join(folder, "results.json"), os.path.join(folder, "log.txt")
    command = ["eval", "-c", _config(name), "--output_eval", os.path.abspath(folder)]
    command += ["--json", os.path.abspath(results), "-o", *options, f"weights={os.path.abspath(weights)}"]
    if start(command, log, _ONE_THREAD).wait():
        raise UserError(f"evaluating {name} failed:\n{tail(log)}")
    with open(results, encoding="utf-8") as file:
        return json.load(file)


def _measure(results, weights, options):
    from ppkd.bridge.weights import load_exactly
    from ppkd.build import build_student
    from ppkd.recipe.recipe import load_recipe
    from ppkd.study.cost import gflops, milliseconds, parameters

    models = {}
    for name in weights:
        models[name] = build_student(load_recipe(_config(name), None, options), load=False)
        load_exactly(models[name], weights[name], name)
    for name, ms in milliseconds(models, INPUT_SIZE).items():
        results[name]["ms_per_image"] = round(ms, 2)
        results[name]["params"] = parameters(models[name])
        results[name]["gflops"] = round(gflops(models[name], INPUT_SIZE), 3)


def _detections(folder):
    path = os.path.join(folder, "bbox.json")
    if not os.path.exists(path):  # ppdet writes none where a detector found nothing at all
        return []
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _show(results, runs, output, data_dir):
    from ppkd.demo.picture import demo_picture
    from ppkd.study.samples import pick_samples
    from ppkd.terminal.table import result_table

    names = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}
    rows = [
        {k: results[key][k] for k in ("AP", "AP50", "APs", "APm", "APl")}
        | {
            "name": label,
            "params_m": results[key]["params"] / 1e6,
            "gflops": results[key]["gflops"],
            "ms": results[key]["ms_per_image"],
        }
        for key, label in names.items()
    ]
    detections = {name: _detections(os.path.join(output, "detections", name)) for name in names}
    samples = pick_samples(
        os.path.join(data_dir, "annotations/instances_val.json"), os.path.join(data_dir, "val"), detections, count=3
    )
    picture = demo_picture(
        os.path.join(output, "demo.png"),
        samples,
        {name: one.curve() for name, one in runs.items()},
        "Same student, same schedule: alone and with a teacher",
        teacher_ap=results["teacher"]["AP"],
        note="the validation images on which the two students differ most",
    )
    gain = 100 * (results["distilled"]["AP"] - results["plain"]["AP"])
    print("\n" + result_table(rows) + "\n")
    print(f"distilled against plain: {gain:+.1f} AP (same student, same seed, same schedule)")
    print(f"picture: {picture}\nnumbers: {os.path.join(output, 'results.json')}\n", flush=True)
