"""ppkd from Python: the commands as functions, by the same code (docs/api.md).

Paths and names are given as on the command line; ``opt`` is what ``-o`` takes, as a list of ``key=value`` or a mapping
from dotted keys to values. A user's mistake is `errors.UserError`, one line of text.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Opt = Mapping[str, Any] | Iterable[str] | None
Path = str | os.PathLike


@dataclass(frozen=True)
class TrainResult:
    """What a training has left.

    Attributes:
        folder: the run's folder, for `report` and `compare`.
        weights: its best weights where it was evaluated, else the final ones.
        best: the best AP (0 to 1) of its evaluations, or None.
        results: figures of the last evaluation by name, as fractions; empty without one.
    """

    folder: str
    weights: str
    best: float | None
    results: dict[str, float]


@dataclass(frozen=True)
class Detection:
    """An object in an image.

    Attributes:
        name: of its class.
        category: id of its class: the data set's where there is one of these names, else the number from 0.
        score: 0 to 1.
        box: ``(x1, y1, x2, y2)`` in pixels of the image; None for a detector that finds masks alone.
    """

    name: str
    category: int
    score: float
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        verdict: in words.
        errors, warnings, notes: ids of findings -> their sentences.
        measured: plain values by section (docs/doctor.md).
    """

    verdict: str
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the run but warnings."""
        return not self.errors


@dataclass(frozen=True)
class Course:
    """What `distill` has left.

    Attributes:
        weights: of the taught student.
        report: path of the page.
        results: figures by detector (``teacher``, ``taught_seed0``, ``plain_seed0``, ...), as fractions.
    """

    weights: str
    report: str
    results: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Labels:
    """What `label` has made.

    Attributes:
        file: the annotation file, in COCO's format.
        picture: examples, the most doubtful first.
        ap: of the teacher on the labelled sample, as a fraction.
        thresholds: by class: ``score`` (None: not labelled), ``source``, ``objects``, ``f1``, ``precision``, ``recall``
            of the labelled sample, and ``labels``, how many were made.
        counts: photographs that were ``listed``, ``labelled``, ``empty``, ``bad``, ``in_training``; and ``boxes``.
        training: keys for `train`'s ``opt`` beside ``dataset_dir``; a validation set's where they are no defaults.
    """

    file: str
    picture: str
    ap: float
    thresholds: dict[str, dict[str, Any]]
    counts: dict[str, int]
    training: dict[str, Any]


def distill(
    data: Path, student: str | None = None, teacher: str | None = None, *, output: Path | None = None,
    epochs: int | None = None, teacher_epochs: int | None = None, imgsz: int | None = None, batch: int | None = None,
    method: str = "auto", baseline: bool = False, seeds: int = 1, waive: Sequence[str] = (),
    unlabelled: Path | None = None,
) -> Course:  # fmt: skip
    """From a folder of images to a taught student, as ``ppkd distill``; goes on where an earlier call ended.

    Args:
        data: folder in COCO's, YOLO's or another format of ``ppkd data import``.
        student, teacher: names or paths of configs; the teacher's with ``=WEIGHTS`` if it is trained.
        output: folder for all that is made.
        epochs, teacher_epochs, imgsz, batch: None for what is proposed.
        method: ``auto``, a method's name, or that of a shipped slim file.
        baseline: train the student without a teacher as well.
        seeds: students of each kind.
        waive: findings of the doctor to go on with.
        unlabelled: photographs without labels, a folder or a list, from which the teacher teaches as well.
    """
    given = {"student": student, "teacher": teacher, "output": _path(output), "epochs": epochs, "imgsz": imgsz,
             "batch": batch, "teacher_epochs": teacher_epochs, "method": method, "baseline": baseline, "seeds": seeds,
             "waive": list(waive) or None, "unlabelled": _path(unlabelled)}  # fmt: skip
    return Course(**_run("distill", [str(data)], given))


def train(
    config: Path, slim_config: Path | None = None, *, evaluate: bool = True, resume: Path | None = None,
    force: bool = False, amp: bool = False, max_steps: int | None = None, epochs: int | None = None,
    imgsz: int | None = None, batch: int | None = None, track: Sequence[str] = (), opt: Opt = None,
) -> TrainResult:  # fmt: skip
    """Train a detector; with `slim_config`, distil a teacher into it, as ``ppkd train``.

    Args:
        config: the student's config.
        slim_config: the teacher's and method's file.
        evaluate: at every snapshot, and keep the best weights.
        resume: checkpoint to go on from, or ``auto``.
        force: go on although the recipe is another.
        amp: mixed precision.
        max_steps: stop after so many steps.
        epochs, imgsz, batch: single settings that move all that hangs on them.
        track: ``tensorboard``, ``wandb``, ``visualdl``, if they are installed.
        opt: over what the files say.
    """
    given = {"slim_config": _path(slim_config), "eval": evaluate, "resume": _path(resume), "force": force, "amp": amp,
             "max_steps": max_steps, "track": list(track) or None}  # fmt: skip
    return TrainResult(**_run("train", ["-c", str(config)], given, _opt(opt, epochs, imgsz, batch)))


def evaluate(
    config: Path, weights: Path, *, imgsz: int | None = None, batch: int | None = None, opt: Opt = None,
    output_eval: Path | None = None,
) -> dict[str, float]:  # fmt: skip
    """Figures of a detector on its validation set by name, as fractions, as ``ppkd eval``.

    Args:
        config: the detector's.
        weights: path or URL.
        imgsz, batch: as for `train`.
        opt: over what the file says.
        output_eval: folder for the detections as COCO json.
    """
    given = {"output_eval": _path(output_eval)}
    return _run("eval", ["-c", str(config)], given, _opt(opt, None, imgsz, batch, weights))


def predict(
    config: Path, weights: Path, images: Path | Sequence[Path], *, threshold: float = 0.5, imgsz: int | None = None,
    opt: Opt = None, draw: Path | None = None,
) -> dict[str, list[Detection]]:  # fmt: skip
    """Detections by image, the best first, as ``ppkd infer``.

    Args:
        config: the detector's.
        weights: path or URL.
        images: an image, several, or a folder of them.
        threshold: lower scores are left out.
        imgsz: as for `train`.
        opt: over what the file says.
        draw: folder for the drawn images; None draws none.

    Raises:
        UserError: also where some of the images cannot be read.
    """
    given = {"draw_threshold": float(threshold), "visualize": draw is not None, "output_dir": _path(draw)}
    several = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    found: dict[str, list[Detection]] = {}
    if len(several) == 1 and os.path.isdir(several[0]):
        given["infer_dir"] = os.fspath(several[0])
    else:
        given["infer_img"] = [os.fspath(path) for path in several]
    for path, detections in _run("infer", ["-c", str(config)], given, _opt(opt, None, imgsz, None, weights)).items():
        kept = [each for each in detections if each.score >= threshold]
        found[path] = [Detection(each.name, each.category, each.score, each.box) for each in kept]
    return found


def export(
    config: Path, weights: Path, *, output_dir: Path | None = None, onnx: bool = False, opset: int | None = None,
    imgsz: int | None = None, opt: Opt = None,
) -> str:  # fmt: skip
    """Write a detector for Paddle Inference and, with `onnx`, as ONNX, as ``ppkd export``; returns the folder."""
    given = {"output_dir": _path(output_dir), "onnx": onnx, "opset": opset}
    return _run("export", ["-c", str(config)], given, _opt(opt, None, imgsz, None, weights))


def doctor(
    config: Path, slim_config: Path, *, images: int | None = None, waive: Sequence[str] = (), opt: Opt = None,
    imgsz: int | None = None,
) -> Diagnosis:  # fmt: skip
    """Examine a distillation before it is run, as ``ppkd doctor``; errors are in what is returned."""
    given = {"slim_config": str(slim_config), "images": images, "waive": list(waive) or None}
    args = _args("doctor", ["-c", str(config)], given, _opt(opt, None, imgsz, None))
    from ppkd.commands.learning import examined
    from ppkd.recipe import load_recipe

    found = examined(args, load_recipe(args.config, args.slim_config, args.opt))
    levels = {}
    for level in ("error", "warning", "note"):
        texts: dict[str, list[str]] = {}
        for item in found.findings.of(level):
            texts.setdefault(item.id, []).append(item.text)
        levels[f"{level}s"] = texts
    return Diagnosis(found.verdict, measured=found.results, **levels)


def label(
    data: Path, teacher: str, images: Path, output: Path, *, least_ap: float | None = None,
    threshold: float | Mapping[str, float] | None = None, sample: int | None = None, add_labelled: bool = False,
    keep_empty: bool = False, imgsz: int | None = None, opt: Opt = None,
) -> Labels:  # fmt: skip
    """Let a trained detector label photographs, as ``ppkd label``; goes on where a killed call ended.

    Args:
        data: folder of the labelled data set, on whose validation set the teacher is measured.
        teacher: ``CONFIG=WEIGHTS``, or ``FILE.onnx`` with `opt` saying how its detections lie.
        images: the photographs: a folder, a list, or a COCO file.
        output: the annotation file to write.
        least_ap: the AP that the teacher has to have, 0 to 1.
        threshold: least score of all classes, or by class; None finds each class's by F1.
        sample: measure on the first so many validation images.
        add_labelled: the labelled training images go into the file as well.
        keep_empty: images without a label stay, as background.
        imgsz: as for `train`, of the teacher.
        opt: over what the teacher's file says.
    """
    if isinstance(threshold, Mapping):
        threshold = ",".join(f"{name}={score}" for name, score in threshold.items()) or None
    given = {"least_ap": least_ap, "sample": sample, "add_labelled": add_labelled, "keep_empty": keep_empty,
             "threshold": None if threshold is None else str(threshold)}  # fmt: skip
    words = [str(data), "--teacher", teacher, "--images", os.fspath(images), "--output", os.fspath(output)]
    made = _run("label", words, given, _opt(opt, None, imgsz, None))
    return Labels(**vars(made))


def report(
    runs: Sequence[Path], output: Path | None = None, *, weights: str | None = None, images: int | None = None,
    opt: Opt = None,
) -> str:  # fmt: skip
    """Write the page about runs, as ``ppkd report``; returns its path."""
    given = {"runs": [str(run) for run in runs], "output": _path(output), "weights": weights, "images": images}
    return _run("report", ["RUN"], given, _opt(opt))


def compare(
    runs: Sequence[Path], *, against: str | None = None, weights: str | None = None, images: int | None = None,
    resamples: int | None = None, opt: Opt = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare methods over seeds with intervals, as ``ppkd compare``: plain values, as its ``--json`` has them."""
    given = {"runs": [str(run) for run in runs], "against": against, "weights": weights, "images": images,
             "resamples": resamples}  # fmt: skip
    return _run("compare", ["RUN"], given, _opt(opt))


def _run(name: str, words: list[str], given: dict[str, Any], opt: Sequence[str] = ()) -> Any:
    """Run a command with its own defaults for what is None."""
    from ppkd import cli, commands

    args = _args(name, words, given, opt)  # looks at the host, before the command is imported
    return getattr(commands, cli.COMMANDS[name][1])(args)


def _args(name: str, words: list[str], given: dict[str, Any], opt: Sequence[str]) -> argparse.Namespace:
    from ppkd import cli
    from ppkd.bridge.host import check_host

    check_host()
    args = cli.COMMANDS[name][0]().parse_args(words)
    for key, value in given.items():
        if value is not None:
            setattr(args, key, value)
    if opt:
        args.opt = list(opt)
    return args


def _opt(opt: Opt, epochs=None, imgsz=None, batch=None, weights=None) -> list[str]:
    from ppkd.files.yaml_io import flow

    if isinstance(opt, Mapping):
        opt = [f"{key}={flow(value)}" for key, value in opt.items()]
    settings = {"epochs": epochs, "imgsz": imgsz, "batch": batch, "weights": _path(weights)}
    return [*(opt or ()), *(f"{key}={value}" for key, value in settings.items() if value is not None)]


def _path(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path)
