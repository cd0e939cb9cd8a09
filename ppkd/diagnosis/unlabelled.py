"""Images without labels: how far from the labelled ones they are to the teacher, and what it finds in them."""

import os
from collections import Counter

import numpy as np

from ppkd.bridge.datasets import files_of, open_dataset
from ppkd.bridge.images import BadImage, decode
from ppkd.bridge.unlabelled import refuse_validation_images
from ppkd.bridge.workspace import scope
from ppkd.diagnosis.normalisations import eval_preparation
from ppkd.diagnosis.sample import Sample
from ppkd.engine.pseudo_boxes import check_names
from ppkd.errors import UserError
from ppkd.files.yaml_io import clone
from ppkd.recipe.plan import UNLABELLED
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.study.coco_matches import Matches
from ppkd.study.thresholds import find
from ppkd.terminal.log import logger, quiet
from ppkd.training.unlabelled import Unlabelled

# Detections below this score are no objects that a threshold has left out.
_SEEN = 0.05
# Distances, in deviations of images of one kind, that are worth a warning, and how many times as far as these are
# among themselves.
_FAR, _TIMES = 0.5, 2.0
# Fewer boxes than this are right: the student learns more that is wrong.
_RIGHT = 0.5


class Photographs(Sample):
    """Some of the images without labels, evenly from all of them, as a `Sample` without objects.

    Args:
        sample: the `Sample` of labelled images, whose classes it has.
        config: the run's.
        paths: of all the images.
        count: how many, if there are as many.

    Attributes:
        bad: path -> why it cannot be read.
    """

    def __init__(self, sample, config, paths, count):
        step = max(len(paths) / count, 1.0)
        self.bad, entries = {}, []
        for number, path in enumerate(paths[int(i * step)] for i in range(min(count, len(paths)))):
            try:
                height, width = decode(path).shape[:2]
            except BadImage as error:
                self.bad[path] = error.reason
                continue
            entries.append({"id": number + 1, "file_name": os.path.abspath(path), "width": width, "height": height})
        self._content = {**sample._content, "images": entries, "annotations": []}
        self._config, self._folder = clone(config) | {"allow_outside": True}, sample._folder
        self._config["EvalDataset"] |= {"dataset_dir": ".", "image_dir": "", "allow_empty": True}
        self.names, self.classes = sample.names, sample.classes


def look_at_unlabelled(subject, count, folder, findings):
    """Compare the images without labels with the validation set's, by the first teacher that is whole.

    Args:
        subject: `subject.Subject`.
        count: images of either kind.
        folder: an empty folder.
        findings: `findings.Findings`.

    Returns:
        Plain values, empty where there are no such images: ``images``; and where a teacher detects, ``looked_at`` and
        ``bad``, how many of them; ``distance`` between the means of the teacher's features of both kinds, in deviations
        of images of one kind (root mean square over the channels of its neck), and ``distance_within`` between two
        halves of these; ``detections`` an image that reach the threshold of their class, of either kind;
        ``below_threshold``, the share of detections that do not; ``without``, the share of images without any that
        does; ``never``, classes that do not appear; ``thresholds`` by class, those of ``distill.pseudo_boxes`` where it
        has them; ``right``, the share of the detections in labelled images that reach them and are of an object (IoU
        0.5), None where there are none; ``boxes``, whether they are boxes for the student's loss.

    Raises:
        UserError: there are none, or some are of the validation set.
    """
    config = subject.recipe.student
    if not config.get(UNLABELLED):
        return {}
    with quiet():
        photographs = Unlabelled(config, 0).photographs
    with scope(config), quiet():
        validated = files_of(open_dataset("EvalDataset", config))
    refuse_validation_images(photographs.paths, validated, UNLABELLED)
    boxes = subject.model.boxes if subject.model else None
    fitting = [each for each in subject.teachers if each.whole and each.classes == subject.classes]
    teacher = next((each for each in fitting if boxes is None or each.name == boxes.teacher), None)
    results = {"images": len(photographs.names)}
    try:
        sample = Sample(config, count, folder)
    except UserError:  # told already
        sample = None
    if teacher is None or sample is None:
        return results
    logger().info("%s: detecting on images without labels", teacher.called)
    others = Photographs(sample, config, photographs.paths, count)
    results |= {"looked_at": len(others), "bad": len(others.bad)}
    if not len(others):
        raise UserError(f"{UNLABELLED}: not one of {count} images can be read: {next(iter(others.bad.items()))}")
    (labelled, ours), (beside, theirs) = (_seen(each, teacher, config) for each in (sample, others))
    results |= _distances(ours, theirs)
    results |= _detections(sample, labelled, others, beside, boxes and boxes.spec.threshold)
    results["boxes"] = boxes is not None
    _judge(results, teacher, findings)
    return results


def _seen(sample, teacher, config):
    """What the teacher finds on a sample, and its features: (images, channels of all levels), means over each map."""
    rows, model = [], teacher.whole
    part = getattr(model, "neck", None) or model.backbone

    def keep(layer, inputs, outputs):
        maps = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        means = [x.astype("float32").mean(axis=[2, 3]).numpy() for x in maps if x.ndim == 4]
        rows.append(np.concatenate(means, axis=1))

    handle, prepare = part.register_forward_post_hook(keep), eval_preparation(config, teacher.spec)
    try:
        found = sample.detect(model, teacher.spec.config["architecture"], teacher.classes, prepare)
    finally:
        handle.remove()
    return found, np.concatenate(rows)


def _distances(ours, theirs):
    deviation = ours.std(axis=0)
    used = deviation > 1e-6 * max(float(np.abs(ours).max()), 1e-12)

    def between(a, b):
        # Of both kinds: a channel that hardly varies in a few labelled images would make any others far.
        both = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2)[used]
        gap = (a.mean(axis=0) - b.mean(axis=0))[used] / np.maximum(both, 1e-3 * deviation[used])
        return float(np.sqrt((gap**2).mean())) if used.any() else 0.0

    within = between(ours[::2], ours[1::2]) if len(ours) > 1 else 0.0
    return {"distance": between(ours, theirs), "distance_within": within}


def _detections(sample, labelled, others, beside, given):
    (results, kind), (found, _) = labelled, beside
    matches = Matches(sample.truth, results, sample.truth.getImgIds(), kind)
    curves = dict.fromkeys(sample.names.values(), ((), (), 0))
    curves |= {sample.names[category]: curve for category, curve in matches.curves().items()}
    given = dict.fromkeys(curves, given) if isinstance(given, float) else given or {}
    check_names(given, list(curves))
    limits = {name: each.score for name, each in find(curves, given).items()}
    taken = [(*curve[:2], limits[name]) for name, curve in curves.items() if len(curve[0]) and limits[name] is not None]
    sure = np.concatenate([np.zeros(0), *(correct[scores >= limit] for scores, correct, limit in taken)])

    def reaching(entries):
        scored = [(e, limits.get(sample.names.get(e["category_id"]))) for e in entries]
        return [e for e, limit in scored if limit is not None and e["score"] >= limit]

    kept = reaching(found)
    candidates = [e for e in found if e["score"] >= _SEEN]
    counts = Counter(sample.names[e["category_id"]] for e in kept)
    with_any = len({e["image_id"] for e in kept})
    return {
        "detections": {"labelled": len(reaching(results)) / len(sample), "unlabelled": len(kept) / len(others)},
        "below_threshold": 1 - len(kept) / max(len(candidates), len(kept), 1),
        "without": 1 - with_any / len(others),
        "never": [name for name in sample.names.values() if not counts[name]],
        "thresholds": limits,
        "right": float(sure.mean()) if len(sure) else None,
    }


def _judge(results, teacher, findings):
    far, within = results["distance"], results["distance_within"]
    if far > max(_FAR, _TIMES * within):
        text = (
            f"in {teacher.called}'s features images without labels are {far:.2f} deviations from labelled ones"
        )
        findings.add("unlabelled-far", f"{text}, whose halves are {within:.2f} from each other")
    if results["without"] == 1:
        findings.add("unlabelled-empty", f"{teacher.called} finds nothing in {results['looked_at']} of them")
    elif results["never"]:
        text = f"{teacher.called} finds none of {', '.join(results['never'])} in {results['looked_at']} of them"
        findings.add("unlabelled-classes", text)
    if results["boxes"] and results["right"] is not None and results["right"] < _RIGHT:
        text = f"of what {teacher.called} finds in labelled images {results['right']:.0%} is right at the thresholds of"
        findings.add("pseudo-boxes-wrong", f"{text} distill.{PSEUDO_BOXES}")
