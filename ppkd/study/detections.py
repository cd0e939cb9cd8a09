"""What a detector finds on the validation set, image by image; kept beside the run, so that it is computed once."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.between import marks_of
from ppkd.bridge.class_names import tell_difference
from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import build_detector, scope
from ppkd.errors import UserError
from ppkd.files.json_io import read_json
from ppkd.files.locate import find_weights
from ppkd.files.write import write_text
from ppkd.files.yaml_io import clone
from ppkd.recipe.keys import RUN_KEYS
from ppkd.terminal.log import logger
from ppkd.training.evaluation import check_reader, evaluate

_FOLDER = "detections"
_ANEW = "; remove it, and it will be computed anew"
# Of the run, what decides which images are seen, and how.
_OF_EVALUATION = ("EvalReader", "EvalDataset", "metric", "eval_size", "eval_height", "eval_width")
# ppdet's result files, the main one of a detector first.
_KINDS = {"bbox.json": "bbox", "segm.json": "segm", "mask.json": "segm"}


@dataclass
class Detections:
    """COCO results.

    Attributes:
        annotations: path of the annotation file.
        image_dir: folder of its images.
        images: ids of the images that the detector saw.
        results: COCO's dicts of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``.
        kind: ``bbox``, or ``segm`` for a detector that finds masks without boxes.
    """

    annotations: str
    image_dir: str
    images: list
    results: list
    kind: str = "bbox"


def config_for(run, spec=None):
    """`config_of` of a run's recipe.

    Args:
        run: `runs.Run`.
        spec: as there.
    """
    return config_of(run.recipe, spec)


def config_of(recipe, spec=None):
    """The config by which the student of a recipe, or one of its teachers, is evaluated on its validation set.

    Args:
        recipe: `recipe.Recipe`.
        spec: `teachers.TeacherSpec`, or None for the student.
    """
    student = recipe.student
    if spec is None:
        return clone(student)
    config = clone(spec.config)
    config["EvalReader"] = config.get("EvalReader") or student.get("EvalReader")
    config |= {key: clone(student[key]) for key in ("EvalDataset", "metric", "use_gpu", "worker_num") if key in student}
    return config


def detect(config, weights, folder, what, images=None):
    """Detections of a detector, read from `folder` if they are there already.

    Args:
        config: of the detector and the validation set; see `config_for`.
        weights: path or URL.
        folder: of the run; the file goes to its folder ``detections``, named by a digest of the weights and of all
            that the detections depend on.
        what: for messages.
        images: look at the first so many images only; None for all.

    Returns:
        `Detections`.

    Raises:
        UserError: another metric than COCO; missing data; weights that do not fit; `folder` is not writable.
    """
    if config.get("metric") != "COCO":
        raise UserError(f"{what}: its metric is {config.get('metric')}; detections are compared by COCO's only")
    config = config | {"save_prediction_only": True}
    if images is not None:
        config["EvalDataset"] = clone(config["EvalDataset"])
        config["EvalDataset"]["sample_num"] = images
    weights = find_weights(weights, what)
    tell_difference(config, weights)
    with scope(config) as table, contextlib.redirect_stdout(io.StringIO()):
        dataset = open_dataset("EvalDataset", config)
        annotations, image_dir = dataset.get_anno(), os.path.join(dataset.dataset_dir, dataset.image_dir)
        ids = [(record["im_file"], int(record["im_id"][0])) for record in dataset.roidbs]
        path = os.path.join(folder, _FOLDER, f"{key_of(config, weights, annotations, [file for file, _ in ids])}.json")
        if os.path.exists(path):
            logger().info("%s: detections of these weights are there already (%s)", what, path)
            return _detections(annotations, image_dir, ids, read_json(path, _ANEW))
        logger().info("%s: detecting on %d images", what, len(ids))
        bad = BadImages(config, "validation")
        check_reader(config)
        model = build_detector(config)
        load_exactly(model, weights, "weights", config.get("num_classes"), what)
        kind, results = run_detector(model, table, bad)
    made = {"kind": kind, "results": results, "bad": list(bad.found)}
    _write(path, made)
    return _detections(annotations, image_dir, ids, made)


def _detections(annotations, image_dir, ids, made):
    bad = set(made.get("bad", ()))  # files of before have none
    images = sorted({number for file, number in ids if file not in bad})
    return Detections(annotations, image_dir, images, made["results"], made["kind"])


def run_detector(model, table, bad):
    """Detect on the EvalDataset of the current scope.

    Args:
        model, table, bad: as `evaluation.evaluate` takes them.

    Returns:
        ``(kind, results)`` as `Detections` has them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        evaluate(model, table, scratch, bad)
        for name, kind in _KINDS.items():
            path = os.path.join(scratch, name)
            if os.path.exists(path):
                return kind, read_json(path)
    return "bbox", []  # ppdet writes no file where a detector found nothing at all


def key_of(config, weights, annotations, images=()):
    """A digest of all that the detections depend on: of values, of the content of two files, and of `images`, which may
    have been mended since, by their sizes and ends."""
    relevant = {
        k: v for k, v in config.items()
        if (k not in RUN_KEYS or k in _OF_EVALUATION) and k not in ("weights", "pretrain_weights")
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode())
    for path in (weights, annotations):
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    digest.update(marks_of(images))
    return digest.hexdigest()[:16]


def _write(path, content):
    write_text(path, json.dumps(content))
