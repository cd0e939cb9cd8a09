"""From which score on a detection is taken for an object, class by class."""

from dataclasses import asdict, dataclass

import numpy as np

from ppkd.bridge.coco_reading import read_tidied
from ppkd.errors import UserError, nearest

# Where a threshold is from.
F1, GIVEN, POOLED, NEVER = "F1", "given", "F1 of all classes together", "never right on the sample"


@dataclass(frozen=True)
class Threshold:
    """A class's least score.

    Attributes:
        score: the least; None if the class is not labelled.
        source: `F1`, `GIVEN`, `POOLED` (no object of the class is in the sample) or `NEVER`.
        objects: of the class, in the sample.
        f1, precision, recall: on the sample at that score, at IoU 0.5; None where they cannot be known.
    """

    score: float | None
    source: str
    objects: int
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None

    def as_dict(self):
        """Plain values."""
        return asdict(self)


def parse(text, names):
    """What ``--threshold`` gives: a score for all classes, ``name=score,...`` for some, or None.

    Returns:
        Name -> score.

    Raises:
        UserError: no score from 0 to 1, or no such class.
    """
    if text is None:
        return {}
    if "=" not in text:
        return dict.fromkeys(names, _score(text))
    found = {}
    for part in text.split(","):
        name, _, score = part.rpartition("=")
        if name.strip() not in names:
            raise UserError(
                f"--threshold {part}: no class {name.strip()!r}{nearest(name.strip(), names)}; there are "
                f"{', '.join(names)}"
            )
        found[name.strip()] = _score(score)
    return found


def _score(text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"--threshold has to be a score from 0 to 1, or CLASS=SCORE,...; found {text!r}")
    return value


def curves_by_name(matches, annotations, names):
    """What `find` takes, of a detector's matches on a validation set.

    Args:
        matches: `coco_matches.Matches`.
        annotations: path of the set's annotation file.
        names: of the classes. In both sets the same class has the same place; its id may be another one.
    """
    places = {each["id"]: place for place, each in enumerate(read_tidied(annotations).content["categories"])}
    curves = dict.fromkeys(names, ((), (), 0))
    for category, curve in matches.curves().items():
        if places[category] < len(names):
            curves[names[places[category]]] = curve
    return curves


def find(curves, given):
    """The `Threshold` of every class.

    Args:
        curves: name -> ``(scores, correct, objects)`` as `coco_matches.Matches.curves` has them.
        given: of `parse`.

    Returns:
        Name -> `Threshold`.
    """
    everything = [curve for curve in curves.values() if len(curve[0])]
    pooled = None
    if everything:
        scores, correct = (np.concatenate([curve[i] for curve in everything]) for i in range(2))
        pooled = best_cut(scores, correct, sum(curve[2] for curve in curves.values()))
    return {name: _of_class(curve, given.get(name), pooled) for name, curve in curves.items()}


def _of_class(curve, given, pooled):
    scores, correct, objects = curve
    if given is not None:
        kept = np.asarray(scores) >= given
        right = int(np.asarray(correct)[kept].sum())
        precision = right / kept.sum() if kept.any() else None
        recall = right / objects if objects else None
        f1 = 2 * right / (int(kept.sum()) + objects) if objects else None
        return Threshold(given, GIVEN, objects, f1, precision, recall)
    if not objects:
        return Threshold(pooled[0] if pooled else None, POOLED, 0)
    cut = best_cut(scores, correct, objects)
    return Threshold(None, NEVER, objects) if cut is None else Threshold(cut[0], F1, objects, *cut[1:])


def best_cut(scores, correct, objects):
    """The score at which F1, that is ``2 right / (detections + objects)``, is highest; the higher one of two.

    Args:
        scores: (D,) of detections.
        correct: (D,) bool, whether each has an object.
        objects: how many objects there are.

    Returns:
        ``(score, F1, precision, recall)``, or None if none is correct.
    """
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    scores, right = np.asarray(scores, float)[order], np.cumsum(np.asarray(correct, bool)[order])
    if not len(scores) or not right[-1]:
        return None
    count = np.arange(1, len(scores) + 1)
    f1 = 2 * right / (count + objects)
    f1[:-1][scores[:-1] == scores[1:]] = -1  # equal scores are all taken, or none of them
    best = int(np.argmax(f1))
    return float(scores[best]), float(f1[best]), float(right[best] / count[best]), float(right[best] / objects)
