"""How well detections agree with annotations, by class and whatever the class, on a few images."""

import contextlib
import io
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Average precision on a sample, as fractions.

    Attributes:
        ap, ap50: COCO's, the mean over the classes that the sample has.
        agnostic, agnostic50: the same with all classes taken as one.
        by_class: category id -> AP50, of those that the sample has.
    """

    ap: float = 0.0
    ap50: float = 0.0
    agnostic: float = 0.0
    agnostic50: float = 0.0
    by_class: dict = field(default_factory=dict)


def score(truth, detections, kind="bbox", images=None):
    """Score detections.

    Args:
        truth: ``pycocotools.coco.COCO``.
        detections: list of COCO results.
        kind: ``bbox`` or ``segm``.
        images: ids of the images to look at; None for all of `truth`.
    """
    images = set(truth.getImgIds() if images is None else images)
    present = sorted({box["category_id"] for box in truth.anns.values() if box["image_id"] in images})
    detections = [found for found in detections if found["image_id"] in images]
    if not detections or not present:
        return Scores(by_class=dict.fromkeys(present, 0.0))
    with contextlib.redirect_stdout(io.StringIO()):
        # Copies: pycocotools adds a box to a mask's, an array that it does not take when it is asked again.
        results = truth.loadRes([dict(found) for found in detections])
        by_class, agnostic = (_precision(truth, results, kind, images, present, use) for use in (True, False))
    return Scores(
        _mean(by_class),
        _mean(by_class[:1]),
        _mean(agnostic),
        _mean(agnostic[:1]),
        {category: _mean(by_class[:1, :, i]) for i, category in enumerate(present)},
    )


def _precision(truth, results, kind, images, categories, use_classes):
    """(IoU thresholds, recalls, classes)."""
    from pycocotools.cocoeval import COCOeval

    run = COCOeval(truth, results, kind)
    run.params.imgIds, run.params.catIds, run.params.useCats = sorted(images), list(categories), int(use_classes)
    run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], run.params.areaRngLbl[:1]  # of any size
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, :, 0, -1]


def _mean(precision):
    values = precision[precision > -1]
    return float(values.mean()) if values.size else 0.0


def found_as(truth, detections, overlap=0.5):
    """What class each object is taken for: that of the surest detection that lies on it.

    Args:
        truth: ``pycocotools.coco.COCO``.
        detections: list of COCO results with ``bbox``.
        overlap: least IoU.

    Returns:
        Category id of the data -> {category id of the detector: number of objects}.
    """
    from pycocotools import mask

    by_image = {}
    for found in detections:
        by_image.setdefault(found["image_id"], []).append(found)
    counts = {}
    for image in truth.getImgIds():
        objects = [box for box in truth.imgToAnns[image] if not box.get("iscrowd")]
        found = by_image.get(image)
        if not objects or not found:
            continue
        ious = mask.iou([d["bbox"] for d in found], [o["bbox"] for o in objects], [0] * len(objects))
        sure = np.where(ious >= overlap, np.array([[d["score"]] for d in found]), -1.0)
        for column, thing in enumerate(objects):
            best = int(sure[:, column].argmax())
            if sure[best, column] >= 0:
                row = counts.setdefault(thing["category_id"], {})
                row[found[best]["category_id"]] = row.get(found[best]["category_id"], 0) + 1
    return counts


def renaming(counts, least=3, share=0.6):
    """Which class of the detector stands for which of the data, where that is another one.

    Args:
        counts: what `found_as` returned.
        least: objects that a class needs to be judged by.
        share: of these that have to agree.

    Returns:
        The detector's category id -> the data's, those that are equal left out.
    """
    found = {}
    for ours, row in counts.items():
        theirs, number = max(row.items(), key=lambda item: item[1])
        if theirs != ours and sum(row.values()) >= least and number >= share * sum(row.values()):
            found[theirs] = ours
    return found


def renamed(detections, names):
    """Detections with other category ids; a class that gives its id away and takes none keeps it."""
    return [found | {"category_id": names.get(found["category_id"], found["category_id"])} for found in detections]
