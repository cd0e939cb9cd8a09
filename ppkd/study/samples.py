"""Which objects a detector found, and the images on which two of them differ most."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ppkd.bridge.coco_reading import read_tidied

__all__ = ["MODELS", "iou", "match", "pick_samples"]

# What the models of a sample are called in pictures.
MODELS = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}
_COMPARED = ("plain", "distilled")
_IOU = 0.5  # least overlap of a detection with its object


def iou(a, b):
    """Overlap of two boxes ``x1 y1 x2 y2 ...``, 0 to 1."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    both = w * h
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def match(truth, detections):
    """Pairs detections with objects of their class, best score first, each object once.

    Objects are ``(x1, y1, x2, y2, class)``; detections have their score behind that.

    Returns (found, correct): for every object whether a detection got it, for every detection
    whether it got an object.
    """
    found, correct = [False] * len(truth), [False] * len(detections)
    for d, box in sorted(enumerate(detections), key=lambda pair: -pair[1][5]):
        overlap = {t: iou(target, box) for t, target in enumerate(truth) if not found[t] and target[4] == box[4]}
        best = max(overlap, key=overlap.get, default=None)
        if best is not None and overlap[best] >= _IOU:
            found[best] = correct[d] = True
    return found, correct


def pick_samples(
    annotations_json: str | os.PathLike,
    image_dir: str | os.PathLike,
    detections_by_model: Mapping[str, Sequence[Mapping]],
    count: int = 4,
    score: float = 0.3,
    among: Sequence[int] | None = None,
) -> list[dict]:
    """The pictures on which plain and distilled student differ most, as `demo_picture` wants them.

    The difference is that of the numbers of objects found at IoU 0.5, in either direction: where
    the plain student is the better one, that is shown too. Ties go to the picture with more
    objects, then to the lower image id.

    Args:
        annotations_json: COCO file of the pictures. Crowd boxes are left out.
        image_dir: the folder of its `file_name`s.
        detections_by_model: "plain", "distilled" and perhaps "teacher": COCO results, that is
            dicts of image_id, category_id, bbox (x, y, width, height in pixels) and score.
        count: number of pictures, fewer if there are fewer.
        score: detections below it are left out.
        among: ids of the pictures to choose from; None for all of the file.

    Returns:
        A list of {"image": path, "id": image id, "truth": [...], "detections": {model: [...]}}.

    Raises:
        ValueError: a model is missing or unknown, or a result belongs to no image or category.
    """
    unknown = sorted(set(detections_by_model) - set(MODELS))
    absent = [name for name in ("plain", "distilled") if name not in detections_by_model]
    if unknown or absent:
        raise ValueError(f"detections of {list(MODELS)}: missing {absent}, unknown {unknown}")
    coco = read_tidied(annotations_json).content
    classes = {c["id"]: c["name"] for c in coco["categories"]}
    images = {image["id"]: image for image in coco["images"]}
    truth = defaultdict(list)
    for entry in coco["annotations"]:
        if not entry.get("iscrowd"):
            truth[entry["image_id"]].append((*_corners(entry), classes[entry["category_id"]]))
    seen = {name: defaultdict(list) for name in MODELS if name in detections_by_model}
    for name, by_image in seen.items():
        for entry in detections_by_model[name]:
            if entry["image_id"] not in images or entry["category_id"] not in classes:
                where = f"image {entry['image_id']}, category {entry['category_id']}"
                raise ValueError(f"a detection of {name} ({where}) is not in {annotations_json}")
            if entry["score"] >= score:
                box = (*_corners(entry), classes[entry["category_id"]], float(entry["score"]))
                by_image[entry["image_id"]].append(box)

    def rank(image_id):
        objects = truth[image_id]
        plain, distilled = (sum(match(objects, seen[m][image_id])[0]) for m in _COMPARED)
        return -abs(distilled - plain), -len(objects), image_id

    return [
        {
            "image": os.path.join(os.fspath(image_dir), images[i]["file_name"]),
            "id": i,
            "truth": truth[i],
            "detections": {name: by_image[i] for name, by_image in seen.items()},
        }
        for i in sorted(images if among is None else among, key=rank)[:count]
    ]


def _corners(entry):
    x, y, w, h = (float(v) for v in entry["bbox"])
    return x, y, x + w, y + h
