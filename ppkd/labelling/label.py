"""``ppkd label``: a teacher that has shown what it can labels photographs that nobody has."""

import json
import os
from dataclasses import dataclass, field

from ppkd import __version__
from ppkd.bridge.between import same_files
from ppkd.bridge.coco_reading import read_tidied
from ppkd.bridge.host import versions
from ppkd.bridge.made_labels import KEY
from ppkd.bridge.unlabelled import Photographs, find_photographs, refuse_validation_images
from ppkd.errors import UserError
from ppkd.files.download import sha256
from ppkd.files.lock import held_alone
from ppkd.files.paths import Folder
from ppkd.files.write import check_writable, write_text
from ppkd.labelling import picture
from ppkd.labelling.place import check_place, picture_of, remove_unfinished, unfinished_of
from ppkd.labelling.teacher import open_teacher
from ppkd.labelling.work import detect_all
from ppkd.recipe.recipe import parse_overrides
from ppkd.study import thresholds
from ppkd.study.coco_matches import Matches, read_coco
from ppkd.study.detections import detect
from ppkd.terminal.log import logger

LEAST_AP = 0.2
# Keys of a validation set: their fields in its section, and what the configs have of themselves.
_VALIDATION = {"val_images": ("image_dir", "images"),
               "val_annotations": ("anno_path", "annotations/instances_val.json")}  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """What the user says.

    Attributes:
        data: folder of the labelled data set, in COCO's format.
        teacher: ``CONFIG=WEIGHTS``.
        images: as `unlabelled.find_photographs` takes it.
        output: the annotation file to write.
        least_ap: the least AP of the teacher on the labelled sample, 0 to 1.
        threshold: of `thresholds.parse`; None finds them all by F1.
        sample: measure the teacher on the first so many validation images; None on all.
        add_labelled: the labelled training images go into the file as well.
        keep_empty: images without a label stay in the file, as background.
        options: ``key=value`` for the teacher's config.
        gpu: whether there is one.
    """

    data: str
    teacher: str
    images: str
    output: str
    least_ap: float = LEAST_AP
    threshold: str | None = None
    sample: int | None = None
    add_labelled: bool = False
    keep_empty: bool = False
    options: tuple = ()
    gpu: bool = False


@dataclass(frozen=True)
class Labels:
    """What was made.

    Attributes:
        file: the annotation file.
        picture: examples, the most doubtful first.
        ap: of the teacher on the labelled sample, as a fraction.
        thresholds: class -> plain values of its `thresholds.Threshold`, and ``labels``, how many were made.
        counts: ``listed`` photographs, ``labelled`` ones, ``empty`` (nothing reaches a threshold), ``bad`` (cannot be
            read), ``in_training`` (labelled already), and ``boxes``.
        training: the keys with which ``ppkd train`` takes the file, beside the labelled data's ``dataset_dir``; those
            of the validation set where they are no defaults, and ``allow_outside`` where images lie elsewhere.
    """

    file: str
    picture: str
    ap: float
    thresholds: dict
    counts: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)


def label(wishes):
    """Measure the teacher, and if it is good enough let it label. Goes on where a killed run ended.

    Returns:
        `Labels`.

    Raises:
        UserError: anything wrong with what is given; a file of somebody in the place of what is written; a teacher
            below the gate, of other classes, or that finds nothing; photographs of the validation set. Nothing is
            written then.
    """
    if not wishes.output.endswith(".json"):
        raise UserError(f"--output {wishes.output}: the labels are a COCO file: give a name that ends in .json")
    if not 0 <= wishes.least_ap <= 1:
        raise UserError(f"--least_ap has to be an AP from 0 to 100%, found {wishes.least_ap!r}")
    check_writable("--output", os.path.dirname(wishes.output) or ".")
    check_place(wishes.output)
    allowed = parse_overrides(wishes.options).get("allow_outside") is True
    photographs = find_photographs(wishes.images, "--images", allow_outside=allowed)
    teacher = open_teacher(wishes.data, wishes.teacher, wishes.options, wishes.gpu)
    given = thresholds.parse(wishes.threshold, teacher.names)
    refuse_validation_images(photographs.paths, teacher.validated, "--images")
    photographs, known = _without_training(photographs, teacher.trained)
    work = unfinished_of(wishes.output)
    with held_alone(work, "--output"):
        sample, found = _measured(teacher, work, wishes, given)
        images, bad = detect_all(teacher, photographs, work)
        made = _Made(teacher, photographs, images, found)
        if not made.boxes:
            raise UserError(
                f"--teacher: of {len(images)} images none has a detection that reaches its class's threshold "
                f"({made.best()}): there is nothing to write. Are these images of what the teacher knows?"
            )
        counts = {"listed": len(photographs.names) + known, "labelled": made.labelled, "boxes": made.boxes,
                  "empty": len(images) - made.labelled, "bad": len(bad), "in_training": known}  # fmt: skip
        shown = picture_of(wishes.output)
        picture.draw(images, photographs.folder, made.names, made.limits, shown)
        by_class = made.by_class()
        told = {name: each.as_dict() | {"labels": by_class[name]} for name, each in found.items()}
        content, keys = made.content(wishes, {"sample": sample, "thresholds": told, "images": counts})
        write_text(wishes.output, json.dumps(content))
        remove_unfinished(work)  # with the lock, while it is held: another command finds it gone, or held
    _tell(counts, by_class, wishes)
    return Labels(wishes.output, shown, sample["AP"], told, counts, keys)


def _without_training(photographs, trained):
    """The photographs that are no training images, by content, and how many are."""
    known = {path for path, _ in same_files(trained, photographs.paths)}
    if not known:
        return photographs, 0
    left = tuple(name for name, path in zip(photographs.names, photographs.paths) if path not in known)
    if not left:
        raise UserError(f"--images: all {len(known)} images are training images, which have labels")
    logger().info("--images: %d of %d images are training images, which have labels: left out", len(known),
                  len(photographs.names))  # fmt: skip
    return Photographs(photographs.folder, left), len(known)


def _measured(teacher, work, wishes, given):
    """The gate: the teacher's AP on the labelled sample, and its thresholds.

    Returns:
        ``(plain values about the sample, class -> Threshold)``.
    """
    found = detect(teacher.config, teacher.weights, work, "--teacher", wishes.sample)
    matches = Matches(read_coco(found.annotations), found.results, found.images, found.kind)
    ap = max(matches.stats()["AP"], 0.0)
    logger().info("the teacher's AP on %d labelled images is %.1f", len(found.images), 100 * ap)
    if not found.results:
        raise UserError(f"--teacher: it finds nothing on {len(found.images)} labelled images: are these its weights?")
    if ap < wishes.least_ap:
        raise UserError(
            f"--teacher: its AP on {len(found.images)} labelled images is {100 * ap:.1f}, below "
            f"{100 * wishes.least_ap:g}: its labels would teach its mistakes. Train it longer or on more; "
            f"--least_ap {int(100 * ap)}% takes it all the same"
        )
    curves = thresholds.curves_by_name(matches, found.annotations, teacher.names)
    sample = {"annotations_sha256": sha256(found.annotations), "images": len(found.images), "AP": ap,
              "least_AP": wishes.least_ap}  # fmt: skip
    return sample, thresholds.find(curves, given)


class _Made:
    """What becomes of detections by the thresholds.

    Args:
        teacher: `teacher.Teacher`.
        photographs: `unlabelled.Photographs`.
        images: of `work.detect_all`.
        found: class -> `thresholds.Threshold`.
    """

    def __init__(self, teacher, photographs, images, found):
        self._teacher, self._photographs = teacher, photographs
        self._images = images
        self.names = {category["id"]: str(category["name"]) for category in teacher.categories}
        self.limits = {key: found[name].score for key, name in self.names.items()}
        self._kept = [[r for r in image["results"] if self._reaches(r)] for image in images]
        self.labelled, self.boxes = sum(map(bool, self._kept)), sum(map(len, self._kept))

    def _reaches(self, result):
        limit = self.limits[result["category_id"]]
        # ppdet's stand-in for nothing at all is a box of score 0.
        return limit is not None and result["score"] >= limit and result["score"] > 0

    def best(self):
        """The highest score of all, in words."""
        best = max((r["score"] for image in self._images for r in image["results"]), default=None)
        return "nothing was found at all" if best is None else f"the best of all scores is {best:.2f}"

    def by_class(self):
        """Class -> number of labels."""
        counts = dict.fromkeys(self.names.values(), 0)
        for result in (result for kept in self._kept for result in kept):
            counts[self.names[result["category_id"]]] += 1
        return counts

    def content(self, wishes, about):
        """The annotation file, and the keys of a config that mean it."""
        folder = os.path.abspath(self._photographs.folder)
        # A list may name images beyond its folder.
        places = [os.path.abspath(os.path.join(folder, image["name"])) for image in self._images]
        images, annotations, paths = [], [], {}
        if wishes.add_labelled:
            labelled = read_tidied(self._teacher.annotations).content
            paths = _paths_of(self._teacher.config["TrainDataset"], labelled["images"])
            images, annotations = labelled["images"], [*labelled["annotations"]]
        root = os.path.commonpath([folder, *map(os.path.dirname, [*places, *paths.values()])])
        images = [entry | {"file_name": os.path.relpath(paths[entry["id"]], root)} for entry in images]
        image_id = max((entry["id"] for entry in images), default=0)
        number = max((entry["id"] for entry in annotations), default=0)
        for image, place, kept in zip(self._images, places, self._kept):
            if not kept and not wishes.keep_empty:
                continue
            image_id += 1
            images.append({"id": image_id, "file_name": os.path.relpath(place, root), "width": image["width"],
                           "height": image["height"]})  # fmt: skip
            for result in kept:
                number += 1
                x, y, width, height = result["bbox"]
                annotations.append({"id": number, "image_id": image_id, "category_id": result["category_id"],
                                    "bbox": [x, y, width, height], "area": width * height, "iscrowd": 0,
                                    "score": result["score"]})  # fmt: skip
        teacher = {"config": self._teacher.name, "weights": os.path.basename(self._teacher.weights),
                   "sha256": sha256(self._teacher.weights)}  # fmt: skip
        info = {"description": "boxes that a detector has found, not drawn by people",
                KEY: {"ppkd": __version__, "versions": versions(), "teacher": teacher, **about}}  # fmt: skip
        content = {"info": info, "images": images, "annotations": annotations, "categories": self._teacher.categories}
        keys = {"train_images": root, "train_annotations": os.path.abspath(wishes.output)}
        return content, keys | _of_validation(self._teacher.config["EvalDataset"]) | _outside(root, images)


def _paths_of(section, images):
    """Id of an image -> absolute path."""
    folder = os.path.abspath(os.path.join(section.get("dataset_dir") or "", section.get("image_dir") or ""))
    return {entry["id"]: os.path.join(folder, entry["file_name"]) for entry in images}


def _of_validation(section):
    """The keys of the validation set that a config does not have of itself."""
    given = {key: section.get(field) or "" for key, (field, _) in _VALIDATION.items()}
    return {key: value for key, value in given.items() if value != _VALIDATION[key][1]}


def _outside(root, images):
    """The key without which training takes no links to images that lie elsewhere, if there are any."""
    inside = Folder(root)
    held = all(inside.holds(os.path.join(root, entry["file_name"])) for entry in images)
    return {} if held else {"allow_outside": True}


def _tell(counts, by_class, wishes):
    if never := [name for name, count in by_class.items() if not count]:
        logger().warning("classes without any label: %s", ", ".join(never))
    dropped = [f"{counts[key]} {what}" for key, what in (
        ("empty", "have no label" + (" and stay as background" if wishes.keep_empty else " and are left out")),
        ("bad", "cannot be read"), ("in_training", "are training images")) if counts[key]]  # fmt: skip
    logger().info("%d of %d images have labels, %d boxes%s", counts["labelled"], counts["listed"], counts["boxes"],
                  "".join(f"; {each}" for each in dropped))  # fmt: skip
