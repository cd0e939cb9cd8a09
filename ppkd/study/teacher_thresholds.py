"""From which score on a teacher's detections are boxes for images without labels: by F1 on the run's validation set."""

from paddle import distributed as dist

from ppkd.bridge.class_names import difference, names_of_training
from ppkd.errors import UserError, nearest
from ppkd.files.class_names import names_beside
from ppkd.recipe.plan import TEACHER
from ppkd.recipe.pseudo_boxes import NAME
from ppkd.study.coco_matches import Matches, read_coco
from ppkd.study.detections import config_of, detect
from ppkd.study.thresholds import curves_by_name, find
from ppkd.terminal.log import logger

_WHERE = f"distill.{NAME}.threshold"


def thresholds_of(recipe, boxes):
    """The least scores of the classes for which a recipe gives none.

    The teacher detects on the whole validation set once; what it finds stays in the run's output folder. With several
    processes the first one does so, and gives the others what it has found.

    Args:
        recipe: `recipe.Recipe`.
        boxes: its plan's `pseudo_boxes.PseudoBoxes`, or None.

    Returns:
        Class -> least score, None for a class that the teacher never finds rightly.

    Raises:
        UserError: no validation set in COCO's format; a teacher that finds nothing rightly, or whose weights are of
            other classes.
    """
    if boxes is None or dist.get_rank():
        return {}
    names, name = names_of_training(recipe.student), boxes.teacher or next(iter(recipe.teachers), TEACHER)
    if name not in recipe.teachers:
        raise UserError(f"distill.{NAME}.from: there is no teacher {name!r}{nearest(name, recipe.teachers)}")
    spec, given = recipe.teachers[name], boxes.threshold or {}
    _check(spec, name, names)
    if isinstance(given, float) or (names and all(each in given for each in names)):
        return {}
    if names is None or recipe.student.get("metric") != "COCO" or not recipe.student.get("EvalDataset"):
        raise UserError(
            f"{_WHERE}: it is found on a validation set in COCO's format (metric: COCO, EvalDataset), which there is "
            "not; give a score, as in threshold: 0.5"
        )
    found = detect(config_of(recipe, spec), spec.weights, recipe.output_dir, f"teacher ({name})")
    matches = Matches(read_coco(found.annotations), found.results, found.images, found.kind)
    made = find(curves_by_name(matches, found.annotations, names), {k: v for k, v in given.items() if k in names})
    if all(each.score is None for each in made.values()):
        raise UserError(
            f"distill.{NAME}: the teacher {name} finds nothing rightly in {len(found.images)} images of the validation "
            "set: are these its weights?"
        )
    for each, threshold in made.items():
        score = "no boxes" if threshold.score is None else f"boxes from a score of {threshold.score:.3f} on"
        f1 = "" if threshold.f1 is None else f", F1 {threshold.f1:.2f}"
        logger().info("images without labels: %s: %s (%s%s)", each, score, threshold.source, f1)
    return {each: threshold.score for each, threshold in made.items()}


def _check(spec, name, names):
    if not spec.detects or not spec.weights:
        raise UserError(f"distill.{NAME}.from: {name} {'has no weights' if spec.detects else 'detects nothing'}")
    if "://" in str(spec.weights):
        return
    theirs, file = names_beside(str(spec.weights).split("#")[0])
    if other := difference(names, "the training set", theirs, file):
        raise UserError(f"distill.{NAME}.from: {other}. Boxes of these would be wrong; terms do without {NAME}")
