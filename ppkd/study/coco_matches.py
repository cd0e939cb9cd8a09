"""Which detections pycocotools matches with which objects, kept image by image: AP of all images and of resampled ones.

A bootstrap recomputes AP a thousand times. Matching, the slow part, does not depend on which images are drawn, so it
is done once; what is left for a resample is counting, for all resamples of a chunk at once.
"""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ppkd.bridge.coco_reading import coco_class

# Sizes of objects as COCOeval names them.
SIZES = ("all", "small", "medium", "large")
_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
# Numbers that a chunk of resamples may hold at a time in one array.
_CHUNK = 4_000_000


def read_coco(path):
    """A pycocotools ``COCO`` of an annotation file, without its messages."""
    with contextlib.redirect_stdout(io.StringIO()):
        return coco_class()(path)


class Matches:
    """One model's detections on one set of images, matched by ``COCOeval.evaluate``.

    Args:
        coco: `read_coco`.
        results: COCO results: dicts of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation``.
        images: ids of the images that count.
        kind: ``bbox`` or ``segm``.

    Attributes:
        images: the ids, ascending: the order of the weights in `resampled`.
        categories: ids of the categories, in the order of `by_class`.
        classes: their names.
        precision: (10, 101, K, 4, 3) as COCOeval has it: IoU thresholds, recalls, classes, sizes, detections an image;
            -1 for a class without objects.
        recalls: the 101 recall values.
    """

    def __init__(self, coco, results, images, kind="bbox"):
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, _loaded(coco, results), kind)
            evaluation.params.imgIds = list(images)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        params = evaluation.params
        self.images = [int(i) for i in params.imgIds]
        self.categories = list(params.catIds)
        self.classes = [coco.cats[c]["name"] for c in params.catIds]
        self.precision, self.recalls = evaluation.eval["precision"], np.asarray(params.recThrs)
        self._stats = [float(value) for value in evaluation.stats[: len(_STATS)]]
        per_class = np.asarray(evaluation.evalImgs, object).reshape(len(params.catIds), len(params.areaRng), -1)
        self._classes = [_ClassMatches(entries[0], len(params.iouThrs), self.recalls) for entries in per_class]

    def stats(self):
        """``{"AP": .., "AP50": .., "AP75": .., "APs": .., "APm": .., "APl": ..}``, -1 where there is no object."""
        return dict(zip(_STATS, self._stats))

    def by_class(self, size="all"):
        """AP of every class over objects of a size, -1 where there are none."""
        found = self.precision[:, :, :, SIZES.index(size), -1]
        return [float(found[:, :, k].mean()) if (found[:, :, k] > -1).any() else -1.0 for k in range(found.shape[2])]

    def curves(self):
        """By id of a category its detections at IoU 0.5, the best first: ``(scores, correct, objects)``.

        `scores` and `correct` are (D,), `objects` is how many there are; crowds count nowhere.
        """
        return {category: found.curve() for category, found in zip(self.categories, self._classes)}

    def resampled(self, weights):
        """AP of resampled sets of images.

        Args:
            weights: (B, I) how many times each of `images` is in each of B sets. Copies of an image have equal scores;
                they stand next to each other where COCOeval sorts by score.

        Returns:
            (B,) float64: what COCOeval would give for each set; NaN for a set without any object.
        """
        weights = np.asarray(weights, "float64")
        sums, counts = np.zeros(len(weights)), np.zeros(len(weights))
        for found in self._classes:
            ap = found.resampled(weights)
            there = ~np.isnan(ap)
            sums[there] += ap[there]
            counts += there
        return np.divide(sums, counts, out=np.full(len(weights), np.nan), where=counts > 0)


class _ClassMatches:
    """The matches of one class, detections sorted by score as COCOeval does.

    The precision at a recall is the largest at any detection of that recall or a higher one, and that is always a
    correct detection, so only these are looked at.
    """

    def __init__(self, per_image, thresholds, recalls):
        there = [(i, entry) for i, entry in enumerate(per_image) if entry is not None]
        self._recalls, self._thresholds = recalls, thresholds
        self._objects = np.zeros(len(per_image))
        for i, entry in there:
            self._objects[i] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        scores = np.concatenate([np.zeros(0), *(entry["dtScores"] for _, entry in there)])
        order = np.argsort(-scores, kind="mergesort")
        image = np.concatenate([np.zeros(0, int), *(np.full(len(e["dtScores"]), i) for i, e in there)])
        self._image, self._scores = image[order], scores[order]
        empty = np.zeros((thresholds, 0))
        matched, ignored = (
            np.concatenate([empty, *(e[key] for _, e in there)], axis=1)[:, order].astype(bool)
            for key in ("dtMatches", "dtIgnore")
        )
        self._counts = ~ignored
        self._correct = [np.flatnonzero(row) for row in matched & ~ignored]
        self._alike = bool((self._counts == self._counts[:1]).all())

    def curve(self):
        """As `Matches.curves`, of this class: at the first threshold of IoU, which is 0.5."""
        correct = np.zeros(len(self._scores), bool)
        correct[self._correct[0]] = True
        return self._scores[self._counts[0]], correct[self._counts[0]], int(self._objects.sum())

    def resampled(self, weights):
        """(B,) AP of this class, NaN where a set has none of its objects."""
        rows = max(1, _CHUNK // max(len(self._image), 1))
        parts = [self._chunk(weights[i : i + rows]) for i in range(0, len(weights), rows)]
        return np.concatenate(parts)

    def _chunk(self, weights):
        objects = weights @ self._objects
        drawn = weights[:, self._image]
        before = np.cumsum(drawn * self._counts[0], axis=1) if self._alike else None
        total = np.zeros(len(weights))
        for counts, correct in zip(self._counts, self._correct):
            if not len(correct):
                continue
            shown = (before if before is not None else np.cumsum(drawn * counts, axis=1))[:, correct]
            found = np.cumsum(drawn[:, correct], axis=1)
            precision = found / (shown + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = found / np.where(objects, objects, 1.0)[:, None]
            # How many of the 101 recall values each detection is the first to reach.
            reached = np.searchsorted(self._recalls, recall, side="right")
            total += (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
        ap = total / (self._thresholds * len(self._recalls))
        return np.where(objects > 0, ap, np.nan)


def _loaded(coco, results):
    if results:
        # Copies: pycocotools adds a box to a mask's, an array that it does not take when it is asked again.
        return coco.loadRes([dict(found) for found in results])
    none = COCO()  # loadRes cannot take an empty list
    none.dataset = {"images": coco.dataset["images"], "categories": coco.dataset["categories"], "annotations": []}
    none.createIndex()
    return none
