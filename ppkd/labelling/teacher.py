"""The teacher that labels: on which data it was measured, and whether it knows these classes."""

import os
from dataclasses import dataclass

from ppkd.bridge.class_names import difference
from ppkd.bridge.coco_reading import read_tidied
from ppkd.bridge.datasets import files_of, open_dataset, tell_categories
from ppkd.bridge.own_data import finds_boxes
from ppkd.bridge.workspace import build_detector, scope
from ppkd.course import data as data_sets
from ppkd.errors import UserError
from ppkd.files.class_names import KEY, given_names, names_beside
from ppkd.files.locate import find_weights
from ppkd.files.yaml_io import flow
from ppkd.models.onnx.layouts import OUTPUTS
from ppkd.recipe.foreign import DETECTIONS, OF_ONNX, ONNX, foreign_config, teach_names
from ppkd.recipe.recipe import load_recipe, parse_overrides
from ppkd.terminal.log import logger

# Whose data sets and settings a detector without a config of ppdet's is measured with.
_RUN = "ppyoloe_plus_tiny_custom"
_OF_RUN = ("TrainDataset", "EvalDataset", "TestDataset", "metric", "use_gpu", "worker_num", "max_bad_images",
           "allow_outside")  # fmt: skip
# Options that together say where the labels lie in a folder.
_FILES = {"train_annotations", "val_annotations"}


@dataclass
class Teacher:
    """A detector that is to label.

    Attributes:
        name: of its config.
        config: its own, with the labelled data set.
        weights: path.
        categories: of the labelled data set, in the order of the detector's classes.
        trained, validated: paths of the labelled images.
        annotations: path of the training annotations.
    """

    name: str
    config: dict
    weights: str
    categories: list
    trained: list
    validated: list
    annotations: str

    @property
    def names(self):
        """Names of the classes."""
        return [str(category["name"]) for category in self.categories]


def open_teacher(data, teacher, options=(), gpu=False):
    """The `Teacher` that the command line names, with the labelled data that it is measured on.

    Args:
        data: folder of the labelled data set.
        teacher: ``CONFIG=WEIGHTS``, or ``FILE.onnx``.
        options: ``key=value`` for its config; of an ONNX file also the keys that stand beside ``onnx``.
        gpu: whether there is one.

    Raises:
        UserError: no weights, no data set in COCO's format, or classes of other names or in another order.
    """
    name, _, weights = teacher.partition("=")
    if name.endswith(".onnx") and not weights:
        weights = name
    if not weights:
        raise UserError(f"--teacher {teacher}: give its weights as well: --teacher {name or 'CONFIG'}=WEIGHTS")
    weights = os.path.abspath(find_weights(weights, "--teacher"))
    if not os.path.isdir(data):
        raise UserError(f"{data}: no such folder; give one with labelled images, on which the teacher is measured")
    keys = _keys_of(data, options) | {"metric": "COCO", "num_classes": "auto", "use_gpu": gpu}
    pairs = [f"{key}={flow(value)}" for key, value in keys.items()]
    onnx = name.endswith(".onnx")
    recipe = load_recipe(_RUN if onnx else name, None, [*pairs, *(_of_run(options) if onnx else options)])
    config, sets = recipe.student, {}
    if not finds_boxes(config.get("architecture")):
        raise UserError(f"--teacher {name}: {config['architecture']} finds masks without boxes, and labels are boxes")
    for section in ("TrainDataset", "EvalDataset"):
        with scope(config):
            sets[section] = open_dataset(section, config)
    if told := tell_categories(config):
        raise UserError(f"{data}: {told}")
    trained, validated = sets.values()
    categories = read_tidied(trained.get_anno()).content["categories"]
    if onnx:
        config = _foreign(weights, options, config, [str(each["name"]) for each in categories])
    name = os.path.basename(weights) if onnx else recipe.name
    found = Teacher(name, config, weights, categories, files_of(trained), files_of(validated), trained.get_anno())
    if onnx:
        logger().info("--teacher: %s", build_detector(config).notice)
    else:
        _check_names(found)
    return found


def _keys_of(data, options):
    """The short keys that mean the labelled data set; the options may name its files, and go first."""
    given = {pair.partition("=")[0].strip() for pair in options}
    if given >= _FILES:
        return {"dataset_dir": os.path.abspath(data), **dict.fromkeys(("train_images", "val_images"), "images")}
    if not data_sets.is_ready(data):
        raise UserError(
            f"{data}: no images/ with annotations/instances_train.json and instances_val.json in it: -o "
            f"train_annotations=FILE val_annotations=FILE names files of COCO's format, and "
            f"ppkd data import {data} --output FOLDER makes such a folder of other formats"
        )
    return data_sets.opened(data, data).keys


def _of_run(options):
    """Those of the options that are no keys of an ONNX file."""
    return [pair for pair in options if pair.partition("=")[0].split(".")[0].strip() not in OF_ONNX]


def _foreign(file, options, run, names):
    """The config of a detector given as ONNX, with the data sets of a run."""
    kept = _of_run(options)
    entry = {ONNX: file, **parse_overrides([pair for pair in options if pair not in kept])}
    if DETECTIONS not in entry:
        raise UserError(
            f"--teacher {file}: how do detections lie in its outputs? -o {DETECTIONS}.layout={'|'.join(OUTPUTS)} and "
            "what goes with it says so"
        )
    if any(pair.partition("=")[0].strip() == "imgsz" for pair in kept):
        raise UserError(f"--imgsz: the size of images for an ONNX file is -o {DETECTIONS}.size=[HEIGHT,WIDTH]")
    config = foreign_config(entry, "--teacher")
    config |= {key: run[key] for key in _OF_RUN if key in run}
    teach_names(config, names)
    return config


def _check_names(teacher):
    theirs, file = names_beside(teacher.weights)
    if teacher.config.get(KEY) is not None:
        theirs, file = given_names(teacher.config[KEY]), KEY
    if theirs is None:
        logger().warning(
            "--teacher: no names of classes lie beside %s, so they are taken for %s, in this order",
            teacher.weights, ", ".join(teacher.names),
        )  # fmt: skip
    elif other := difference(teacher.names, teacher.annotations, theirs, file):
        raise UserError(f"--teacher: {other}. Labels of these would be wrong: take a teacher of the data set's classes")
