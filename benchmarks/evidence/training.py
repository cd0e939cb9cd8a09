"""A training of the evidence: a process of its own, with one thread."""

import fcntl
import hashlib
import json
import os
import statistics
import subprocess
import sys

from benchmarks.evidence import results
from ppkd.bridge.host import versions
from ppkd.files.write import write_text
from ppkd.training.records import read_records

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEACHER, PLAIN = "teacher", "plain"


class Run:
    """One training of a plan.

    Args:
        plan: `arms.yml`, read.
        name: the set's.
        arm, seed: which it is.
        args: `run.py`'s: ``data``, ``work`` and ``results``.

    Attributes:
        set, arm, seed, key: which it is.
        taught: whether it has a teacher, who may have made its labels alone.
    """

    def __init__(self, plan, name, arm, seed, args):
        self.set, self.arm, self.seed, self.key = name, arm, seed, (name, arm, seed)
        self._plan, self._args, self._data = plan, args, plan["sets"][name]
        self._arm = {} if arm == TEACHER else plan["arms"][arm]
        self._labelled = self._arm.get("labels", False)
        self.taught = "slim" in self._arm or self._labelled
        self.student = self._data[TEACHER] if arm == TEACHER else self._arm.get("student", self._data["student"])
        self.folder = os.path.join(os.path.abspath(args.work), name, arm, str(seed))
        self.output = os.path.join(self.folder, os.path.splitext(os.path.basename(self.student))[0])
        given = self._data.get("given") if arm == TEACHER else None
        self._given = given and os.path.normpath(os.path.join(os.path.abspath(args.data), given))
        self._hidden = results.Hidden(PROJECT=ROOT, DATA=args.data, WORK=args.work)

    @property
    def epochs(self):
        if self.arm == TEACHER:
            return self._data["teacher_epochs"]
        times = self._data.get("times", {}).get(self.arm, self._arm.get("times", 1))
        return round(self._data["epochs"] * times)

    def state(self):
        """``done``, ``failed``, ``epoch N`` or ``-``."""
        kept = results.find(self._args.results, self.key)
        if kept and "failed" in kept:
            return "failed"
        # Others are taught with the weights of a teacher, so they have to be here too.
        if kept and (self.arm != TEACHER or os.path.exists(self.weights())):
            return "done"
        done = max((record["epoch"] for record in self._records("eval")), default=0)
        return f"epoch {done}" if os.path.exists(self.output) else "-"

    def teacher(self):
        """The run that trains this one's teacher."""
        return Run(self._plan, self._data.get("teacher_of", self.set), TEACHER, 0, self._args)

    def weights(self, begun=False):
        """Path of the weights that a teacher teaches with; of one that has only begun, those of its last step."""
        if self._given:
            return self._given
        return f"{self.output}/{'model_final' if begun or not self._chosen else 'best_model'}.pdparams"

    @property
    def _chosen(self):
        """Whether a teacher is that of its best epoch: not where the split that would tell it is the test split."""
        return self._data["val"] != self._data["test"]

    def near_plain(self, distance):
        """Whether the arm with seed 0 ended at most `distance` AP below plain; False as long as one has not."""
        ends = [results.find(self._args.results, (self.set, arm, 0)) for arm in (self.arm, PLAIN)]
        if any(end is None or "failed" in end for end in ends):
            return False
        return 100 * (ends[1]["AP"] - ends[0]["AP"]) <= distance

    def command(self, steps=None):
        """The ordinary command that this run is."""
        data, every = self._data, max(self.epochs // 8, 1)
        names = {"third": self.epochs // 3, "two_thirds": 2 * self.epochs // 3, "data": self._folder()}
        names["three_eighths"] = 3 * self.epochs // 8
        warmup = {"steps": data["warmup_steps"]} if "warmup_steps" in data else {"epochs": 2}
        schedule = [{"name": "CosineDecay", "max_epochs": self.epochs + 1},
                    {"name": "LinearWarmup", "start_factor": 0.0, **warmup}]  # fmt: skip
        options = [
            *self._data_options(data["val"]), f"epoch={self.epochs}", f"snapshot_epoch={every}", "snapshot_steps=25",
            "keep=1", f"seed={self.seed}", f"save_dir={self.folder}", f"LearningRate.schedulers={json.dumps(schedule)}",
            *(option.format(**names) for option in (*data.get("options", []), *self._arm.get("options", []))),
        ]  # fmt: skip
        command = [sys.executable, os.path.join(ROOT, "tools", "train.py"), "-c", os.path.join(ROOT, self.student)]
        if "slim" in self._arm:
            command += ["--slim_config", os.path.join(ROOT, self._arm["slim"])]
            options.append(f"teacher.pretrain_weights={self.teacher().weights(begun=bool(steps))}")
        command += ["--max_steps", str(steps)] if steps else ["--eval"]
        return [*command, "-r", "auto", "-o", *options]

    def _data_options(self, annotations):
        data = self._data
        train = self._arm.get("train", self._thinned() or data["train"])
        return [
            f"dataset_dir={self._folder()}",
            f"train_images={data.get('images', 'images')}", f"val_images={data.get('images', 'images')}",
            f"train_annotations={self._labels() if self._labelled else train}", f"val_annotations={annotations}",
        ]  # fmt: skip

    def _folder(self):
        return os.path.join(os.path.abspath(self._args.data), self._data["folder"])

    def _labels(self):
        """Path of the labels that the teacher makes for this run, the labelled images among them."""
        return os.path.join(self.folder, "labels.json")

    def _labelling(self, begun):
        """The command by which the teacher labels the set's images; it ends at once where that is done."""
        data, teacher = self._data, self.teacher()
        return [
            sys.executable, "-m", "ppkd", "label", self._folder(),
            "--images", os.path.join(self._folder(), data["unlabelled"]),
            "--teacher", f"{os.path.join(ROOT, teacher.student)}={teacher.weights(begun)}",
            "--output", self._labels(), "--add_labelled",
            *(["--least_ap", data["least_ap"]] if "least_ap" in data else []),
            "-o", f"train_annotations={self._thinned() or data['train']}", f"val_annotations={data['val']}",
        ]  # fmt: skip

    def _thinned(self):
        """Path of the file with some of the training images, of a set that has not all of them; else None."""
        every, name = self._data.get("every"), os.path.basename(self._data["train"])
        return every and os.path.join(os.path.abspath(self._args.work), f"every_{every}_{name}")

    def thin(self):
        """Write the file with some of the training images, of a set that has not all of them."""
        if thin := self._thinned():
            whole = os.path.join(self._args.data, self._data["folder"], self._data["train"])
            write_text(thin, thinned(whole, self._data["every"]))

    def train(self, steps=None):
        """Train, and put what it gave into the results, in place of what an earlier try gave.

        A teacher whose weights are given is measured on the test split and not trained.

        Args:
            steps: end after so many, and keep no results.

        Returns:
            The exit code, or None if another process has this run, also one that its starter has left behind.

        Raises:
            SystemExit: it was ended by a signal.
        """
        os.makedirs(self.folder, exist_ok=True)
        if self._given:
            return 0 if steps else self._measure()
        self.thin()
        with open(os.path.join(self.folder, "lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return None
            code = 0
            for command in ([self._labelling(bool(steps))] if self._labelled else []) + [self.command(steps)]:
                with open(os.path.join(self.folder, "log.txt"), "a", encoding="utf-8") as log:
                    code = code or subprocess.call(
                        command, cwd=ROOT, stdout=log, stderr=log, env=one_thread(), pass_fds=[lock.fileno()]
                    )
            if code < 0 or code > 128:
                raise SystemExit(f"{self.set} {self.arm} {self.seed}: ended by a signal; the same command goes on")
            if not steps:
                what = self._found() if code == 0 else {"failed": f"exit {code}: {self.last_line()}"}
                results.write(self._args.results, {**self._named(), **what})
        return code

    def _named(self):
        return {"data": self.set, "student": self.student, "arm": self.arm, "seed": self.seed}

    def last_line(self):
        """What the run said last, without this machine's folders."""
        with open(os.path.join(self.folder, "log.txt"), encoding="utf-8", errors="replace") as log:
            return self._hidden((log.read().strip().splitlines() or ["no message"])[-1])[:300]

    def _records(self, kind):
        path = os.path.join(self.output, "metrics.jsonl")
        return [record for record in read_records(path) if record["kind"] == kind] if os.path.exists(path) else []

    def _found(self):
        evals, steps = self._records("eval"), self._records("train")
        seconds = statistics.median(record["seconds_per_step"] for record in steps)
        with open(os.path.join(self.output, "recipe.yml"), encoding="utf-8") as recipe:
            digest = hashlib.sha256(self._hidden(recipe.read()).encode()).hexdigest()[:16]
        found = {
            "recipe": digest, **{key: round(value, 6) for key, value in evals[-1].items() if key.startswith("AP")},
            "curve": [[record["step"], round(record["AP"], 4)] for record in evals], "steps": evals[-1]["step"],
            "updates": self._updates(), "seconds_per_step": round(seconds, 3), "versions": versions(),
        }  # fmt: skip
        if not self._chosen:
            found["test"] = {key: value for key, value in found.items() if key.startswith("AP")}
        if self.taught and not self.teacher()._given:
            reached = [record["AP"] for record in self.teacher()._records("eval")]
            found["teacher_AP"] = max(reached) if self._chosen else reached[-1]
        return found

    def _updates(self):
        """How far either loss moves the weights: ``[step, the detection loss, the distillation or None]``."""
        records = [record for record in self._records("gradients") if "detection.update" in record]
        lengths = [(record["detection.update"], record.get("distillation.update")) for record in records]
        rounded = [[x if x is None else round(x, 4) for x in pair] for pair in lengths]
        return [[record["step"], *pair] for record, pair in zip(records, rounded)]

    def test(self):
        """Evaluate the final weights on the test split, once; of the teacher those it taught with."""
        found = results.find(self._args.results, self.key)
        if found is None or "failed" in found or "test" in found or "given" in found:
            return
        weights = self.weights() if self.arm == TEACHER else f"{self.output}/model_final.pdparams"
        results.write(self._args.results, {**found, "test": self._tested(weights)})

    def _measure(self):
        """Put into the results what given weights reach on the test split."""
        name, there = os.path.basename(self._given), os.path.exists(self._given)
        what = {"given": name, **self._tested(self._given)} if there else {"failed": f"there is no {name}"}
        results.write(self._args.results, {**self._named(), **what})
        return int(not there)

    def _tested(self, weights):
        """AP, as a fraction, of weights on the test split."""
        out = os.path.join(self.folder, "test.json")
        subprocess.check_call([
            sys.executable, os.path.join(ROOT, "tools", "eval.py"), "-c", os.path.join(ROOT, self.student),
            "--json", out, "-o", *self._data_options(self._data["test"]), f"weights={weights}",
        ], cwd=ROOT, env=one_thread())  # fmt: skip
        with open(out, encoding="utf-8") as file:
            return {key: round(value, 6) for key, value in json.load(file).items() if key.startswith("AP")}


def thinned(path, every):
    """The text of an annotation file with every `every`-th image of the one at `path`, and its boxes."""
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    images = data["images"][::every]
    kept = {image["id"] for image in images}
    boxes = [box for box in data["annotations"] if box["image_id"] in kept]
    return json.dumps({**data, "images": images, "annotations": boxes})


def one_thread():
    """The environment of a run."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
