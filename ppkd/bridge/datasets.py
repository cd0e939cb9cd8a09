"""Checks and opens ppdet's data sets, with one clear message where something is missing."""

import contextlib
import os

from ppkd.bridge.annotation_file import read_annotations
from ppkd.bridge.annotations import LOSSES, Found, weigh
from ppkd.bridge.bad_images import missing_images
from ppkd.bridge.between import compare_categories, same_files
from ppkd.bridge.coco import Tidied
from ppkd.bridge.coco_reading import handed_over, read_tidied, uncollected
from ppkd.bridge.images import fault
from ppkd.bridge.kinds import ANNOTATIONS, ERROR, WARNING, kinds_of
from ppkd.bridge.made_labels import made_labels
from ppkd.bridge.missing import cure_of
from ppkd.bridge.own_data import finds_masks
from ppkd.bridge.voc import is_voc, read_voc
from ppkd.bridge.workspace import built_from_config, create
from ppkd.errors import UserError, whole
from ppkd.files.paths import Folder
from ppkd.files.regular import NotAFile, check_file, open_file
from ppkd.terminal.log import hushed, logger

_COCO = (
    "COCO 2017 is not shipped: download train2017.zip, val2017.zip and annotations_trainval2017.zip from the Download "
    "page of https://cocodataset.org (20 GB) and unpack them into that folder. If you have it already, point to it "
    "with -o dataset_dir=/path/to/coco; for data of your own see docs/own_data.md"
)
# How long a run that evaluates as it trains may look for images that are in both of its sets.
_SECONDS = 10
_OWN = (
    "Put it there, or point elsewhere with -o dataset_dir=... {split}_images=... {split}_annotations=... "
    "(docs/own_data.md)"
)

# What broken annotations raise in ppdet and pycocotools.
_BROKEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def open_dataset(section, config):
    """Create and parse the data set of `section` in the current scope.

    Args:
        section: ``TrainDataset`` or ``EvalDataset``.
        config: the run's config.

    Returns:
        A parsed ppdet data set; ``missing_images`` are the paths of those that it leaves out because there is no file.

    Raises:
        UserError: folder or annotation file missing, annotation file broken, no image or (unless
            ``save_prediction_only``) no annotation in it, names in it that lead out of the data set's folder (unless
            ``allow_outside``), more categories than ``num_classes``.
    """
    check_files(section, config)
    with built_from_config(section):  # a tag may stand for what is no data set
        dataset = create(section)()
        path = dataset.get_anno()
    if type(dataset).__name__ == "VOCDataSet":  # whose list names files that parsing opens
        _check_inside(section, dataset, _listed(dataset), config)
    handed = _checked(section, dataset, path, config)
    try:
        with missing_images() as missing, handed, hushed(), uncollected():
            dataset.parse_dataset()
    except _BROKEN as error:
        if not missing or str(path).endswith(".json"):
            raise UserError(f"{section}: {_why(section, dataset, path, error)}") from error
        dataset.roidbs = []  # so ppdet says that there is none
    if not len(dataset.roidbs):
        cure = _cure(missing, section, dataset)
        raise UserError(f"{section}: no image of {path} was found under {_images(dataset)}{cure}")
    if getattr(dataset, "load_image_only", False) and not config.get("save_prediction_only"):
        raise UserError(f"{section}: {path} has no `annotations`: nothing to learn from, or to compare with")
    _check_inside(section, dataset, files_of(dataset), config)
    dataset.missing_images = missing
    cure = _cure(missing, section, dataset)
    if missing and (section != "TrainDataset" or cure):  # those of the training are told and counted by it
        what = f"{len(missing)} images of {path} are missing, the first is {missing[0]}{cure}"
        logger().warning("%s: %s", section, what)
    return dataset


def check_sets(config):
    """Open the validation set, and compare it with the training set, before a run that evaluates as it trains.

    Returns:
        Paths of the validation images.

    Raises:
        UserError: as `open_dataset`; classes are numbered otherwise in the one than in the other; no image can be read.
    """
    dataset = open_dataset("EvalDataset", config)
    if told := tell_categories(config):
        raise UserError(f"EvalDataset: {told}")
    paths = files_of(dataset)
    if not any(fault(path) is None for path in paths):  # as a rule the first one can be read
        raise UserError(
            f"EvalDataset: not one of {len(paths)} validation images can be read, the first: {paths[0]}: "
            f"{fault(paths[0])}. ppkd doctor --data -c ... lists all"
        )
    return paths


def files_of(dataset):
    """Paths of the images of a parsed data set."""
    return [record["im_file"] for record in dataset.roidbs if "im_file" in record]


def tell_same_images(trained, validated):
    """Warn where images that a run is evaluated on are, by content, images that it trains on.

    Args:
        trained, validated: paths of the images.
    """
    found = []
    try:
        for pair in same_files(trained, validated, _SECONDS):
            found.append(pair)
    except TimeoutError:
        logger().info(
            "EvalDataset: not all images were compared with the training set's in %d s; ppkd doctor --data does it",
            _SECONDS,
        )
    if found:
        what = f"{len(found)} of {len(validated)} images are training images too, the first: {' is '.join(found[0])}"
        logger().warning("EvalDataset: %s: same-image: %s", what, ANNOTATIONS["same-image"][1])


def tell_categories(config):
    """What `between.compare_categories` finds, as a warning, or returned where no AP can be right."""
    kind, text = compare_categories(config) or (None, "")
    if kind == "category-order":
        return f"{text}: classes would be trained as one thing and evaluated as another; {ANNOTATIONS[kind][1]}"
    if kind:
        logger().warning("EvalDataset: %s: %s", text, ANNOTATIONS[kind][1])
    return None


def judge(section, config, path, found, load_crowd=False):
    """Read annotations in COCO's or Pascal VOC's format and note all that is wrong with them: what training and
    evaluation start by, and what ``ppkd doctor --data`` tells.

    Args:
        section: ``TrainDataset`` or ``EvalDataset``.
        config: the run's config.
        path: the file.
        found: `annotations.Found`.
        load_crowd: as the data set has it.

    Returns:
        ``(coco.Tidied, ids of the images with a box)``.

    Raises:
        UserError: it is missing or no annotation file at all.
    """
    evaluated, voc = section != "TrainDataset", is_voc(config.get(section))
    with uncollected():
        if voc:
            tidied = Tidied(read_voc(config[section], found.note), found.note)
        else:
            tidied = read_tidied(path, ("images", "categories"), found.note)
        if made := made_labels(tidied.content):
            found.note("made-validation-labels" if evaluated else "made-labels", made)
        categories, classes = len(tidied.content["categories"]), config.get("num_classes")
        if isinstance(classes, int) and categories > classes:
            text = f"{categories} categories, more than num_classes: {classes}; set -o num_classes={categories}"
            found.note("too-many-categories", text)
        return tidied, weigh(tidied, found, finds_masks(config), evaluated, load_crowd, not voc)


def _checked(section, dataset, path, config):
    """Refuse and tell what `judge` finds; a block in which ppdet gets the content without reading the file again."""
    dataset.original_ids = {}
    of_coco = type(dataset).__name__ == "COCODataSet" and str(path).endswith(".json")
    if not of_coco and not is_voc(config.get(section)):
        return contextlib.nullcontext()
    evaluated = of_coco and section != "TrainDataset"
    found, predicts = Found(kinds_of(evaluated)), bool(config.get("save_prediction_only"))
    try:
        tidied, full = judge(section, config, path, found, getattr(dataset, "load_crowd", False))
    except UserError as error:
        raise UserError(f"{section}: {error}") from None
    if not tidied.content["images"] and not found.of(ERROR):
        raise UserError(f"{section}: {path}: its `images` are empty")
    errors = [kind for kind in found.of(ERROR) if not (predicts and kind == "nothing-kept")]
    if errors:
        told = "; ".join(found.told(kind) for kind in errors)
        raise UserError(f"{section}: {path}: {told}. ppkd doctor --data -c ... lists all")
    for kind in found.of(WARNING):
        logger().warning("%s: %s: %s", section, path, found.told(kind))
    if found.counts["made-labels"]:
        logger().info("%s: %s: %s", section, path, found.told("made-labels"))
    if found.kept < found.listed and not found.counts["boxes-lost"]:
        reasons = ", ".join(f"{found.counts[kind]} {kind}" for kind in LOSSES if found.counts[kind])
        kept, what = found.kept, "left"
        if evaluated:
            kept, what = found.counted, "evaluated"
        logger().info("%s: %s: %d of %d boxes are %s: %s", section, path, kept, found.listed, what, reasons)
    if evaluated and getattr(dataset, "allow_empty", True) is not True:
        _tell_unseen(section, path, tidied.content, full)
    dataset.original_ids = tidied.original
    return handed_over(path, tidied.content) if of_coco else contextlib.nullcontext()


def _tell_unseen(section, path, content, full):
    """Warn of images that ppdet leaves out of a validation set although they have boxes that pycocotools counts."""
    entries = content.get("annotations", ())
    unseen = {entry["image_id"] for entry in entries if entry["image_id"] not in full and not entry["iscrowd"]}
    if unseen:
        logger().warning(
            "%s: %s: %d images are left out of the evaluation, for training would take none of their boxes: "
            "-o %s.allow_empty=true evaluates them",
            section, path, len(unseen), section,
        )  # fmt: skip


def _listed(dataset):
    """The paths that a list of PASCAL VOC names: an image and its annotation a line."""
    path = os.path.join(dataset.dataset_dir, dataset.anno_path)
    try:
        with open_file(path, encoding="utf-8") as file:
            lines = [[os.path.join(_images(dataset), name) for name in line.split()] for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    for annotation in (names[1] for names in lines if len(names) > 1):
        try:
            check_file(annotation)  # which ElementTree opens
        except NotAFile as error:
            raise UserError(f"{annotation}: {error}") from None
        except (OSError, ValueError):
            continue  # ppdet tells what is missing
    return [name for names in lines for name in names]


def _cure(missing, section, dataset):
    split = "train" if section == "TrainDataset" else "val"
    return cure_of(missing, dataset.dataset_dir, _images(dataset), split)


def _images(dataset):
    return os.path.join(dataset.dataset_dir, dataset.image_dir or "") or "."


def _check_inside(section, dataset, paths, config):
    """Refuse paths of an annotation file that lead out of the data set's folder, by ``..``, absolute or by a link."""
    allowed = config.get("allow_outside", False)
    if not isinstance(allowed, bool):
        raise UserError(f"allow_outside has to be true or false, found {allowed!r}")
    if allowed:
        return
    # The folder of images may be a link to another disk; that link is not of the annotation file's making.
    folders = [Folder(dataset.dataset_dir or "."), Folder(_images(dataset))]
    outside = [path for path in paths if not any(folder.holds(path) for folder in folders)]
    if outside:
        raise UserError(
            f"{section}: {len(outside)} of {len(paths)} names in {dataset.anno_path} lead out of the data set's folder "
            f"{dataset.dataset_dir}, the first to {os.path.realpath(outside[0])}; if that is as you want it, set "
            "-o allow_outside=true"
        )


def _why(section, dataset, path, error):
    """What is wrong with an annotation file that ppdet could not parse."""
    if not str(path).endswith(".json"):
        return f"{path} is broken or of another format: {type(error).__name__}: {error}"
    try:
        images = read_annotations(path, ("images", "categories"))["images"]
        names = [str(image["file_name"]) for image in images]
    except UserError as reason:
        return str(reason)
    except (KeyError, TypeError):
        return f"{path}: not a COCO annotation file: its `images` have no `file_name`"
    folder = os.path.join(dataset.dataset_dir, dataset.image_dir)
    if not names:
        return f"{path}: its `images` are empty"
    if not any(os.path.exists(os.path.join(folder, name)) for name in names):
        cure = _cure([os.path.join(folder, name) for name in names], section, dataset)
        return f"none of the {len(names)} images of {path} is in {folder} (the first is {names[0]}){cure}"
    if isinstance(error, AssertionError):
        return f"no image of {path} has a box; allow_empty: true would keep images without"
    lacks = f"an entry lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
    return f"{path}: not in COCO's format: {lacks}"


def check_files(section, config):
    """Check that the folder and the annotation file of a data set section exist.

    ppdet would start to download COCO (20 GB) instead.

    Raises:
        UserError: something is missing; says what, where it was looked for, and how to set it.
    """
    given = config.get(section)
    if not isinstance(given, dict):
        raise UserError(f"the config has no {section}; a _BASE_ such as configs/datasets/coco_detection.yml gives one")
    if getattr(given, "tag", None) is None and "name" not in given:
        raise UserError(f"{section} names no class: write {section}: !COCODataSet {{...}}, or name: COCODataSet in it")
    folder = str(given.get("dataset_dir") or ".")
    wanted = {"data set folder": folder}
    for what, key in (("annotation file", "anno_path"), ("image folder", "image_dir")):
        if given.get(key):
            wanted[what] = os.path.join(folder, str(given[key]))
    if given.get("label_list") and os.path.exists(os.path.join(folder, str(given["label_list"]))):
        wanted["list of classes"] = os.path.join(folder, str(given["label_list"]))
    for what, path in wanted.items():
        if not os.path.exists(path):
            content = " and ".join(str(given[key]) for key in ("image_dir", "anno_path") if given.get(key))
            inside = f", which has to hold {content}" if path == folder and content else ""
            how = _COCO if "2017" in content else _OWN.format(split="train" if section == "TrainDataset" else "val")
            raise UserError(f"{section}: no {what} at {whole(path)}{inside}. {how}")
        if what.endswith("folder"):
            if not os.path.isdir(path):
                raise UserError(f"{section}: the {what} {path} is a file, not a folder")
            continue
        try:
            check_file(path)
        except OSError as error:
            raise UserError(f"{section}: the {what} {path} {error}") from None
