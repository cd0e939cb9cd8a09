"""The AP of every class, from what ppdet's evaluation has counted already, and precision-recall curves as files.

ppdet names the files after the classes: ``car/van`` is then a folder that is not there.
"""

import contextlib
import os
from dataclasses import dataclass

import numpy as np

from ppkd.files.paths import safe_name
from ppkd.files.write import filling
from ppkd.terminal.table import text_table


@dataclass
class ByClass:
    """One evaluation.

    Attributes:
        kind: what is compared: ``bbox``, ``segm`` or, by VOC's metric, ``voc``.
        rows: ``{"name", "objects", "AP"}`` of each class in the order of the detector's outputs, of COCO's metric with
            ``AP50``; AP as fractions, -1 where the data set has no object of a class.
        curves: of each class ``(recall, precision)`` at an IoU of 0.5.
    """

    kind: str
    rows: list
    curves: list

    def table(self):
        """The rows as text, AP in percent, no line break at the end."""
        keys = [key for key in ("AP", "AP50") if key in self.rows[0]]
        shown = [[row["name"], str(row["objects"]), *(_percent(row[key]) for key in keys)] for row in self.rows]
        return text_table([("class", "objects", *keys), *shown])

    def draw(self, folder):
        """Write ``KIND_pr_curve/NUMBER_NAME_precision_recall_curve.jpg`` for each class into `folder`.

        Returns:
            The folder of the curves.

        Raises:
            UserError: they cannot be written; those that were there are as they were.
        """
        from ppdet.metrics.map_utils import draw_pr_curve

        target = os.path.join(folder, f"{self.kind}_pr_curve")
        with filling(target) as scratch:
            for number, (row, (recall, precision)) in enumerate(zip(self.rows, self.curves)):
                name = f"{number}_{safe_name(row['name'])[:60]}_precision_recall_curve.jpg"
                draw_pr_curve(precision, recall, out_dir=scratch, file_name=name)
        return target


@contextlib.contextmanager
def watched_classes():
    """A block in which ppdet evaluates; yields a list, which has a `ByClass` for each evaluation afterwards."""
    from ppdet.metrics import metrics
    from pycocotools import cocoeval

    found, of_coco, of_voc = [], cocoeval.COCOeval, metrics.DetectionMAP

    class Coco(of_coco):
        def summarize(self):
            super().summarize()
            found.append(_of_coco(self))

    class Voc(of_voc):
        def accumulate(self):
            super().accumulate()
            found.append(_of_voc(self))

    cocoeval.COCOeval, metrics.DetectionMAP = Coco, Voc
    try:
        yield found
    finally:
        cocoeval.COCOeval, metrics.DetectionMAP = of_coco, of_voc


def _of_coco(evaluation):
    precision, recall = evaluation.eval["precision"], evaluation.params.recThrs  # IoU, recall, class, area, detections
    places = {category: place for place, category in enumerate(evaluation.params.catIds)}
    objects = dict.fromkeys(places, 0)
    for (_, category), entries in evaluation._gts.items():
        objects[category] += sum(not entry["ignore"] for entry in entries)
    rows, curves = [], []
    # As the file lists them, which is how the detector's outputs are numbered.
    for category in evaluation.cocoGt.dataset["categories"]:
        values = precision[:, :, places[category["id"]], 0, -1]
        row = {"name": str(category["name"]), "objects": int(objects[category["id"]])}
        rows.append(row | {"AP": _mean(values), "AP50": _mean(values[0])})
        curves.append((recall, np.where(values[0] < 0, np.nan, values[0])))
    return ByClass(evaluation.params.iouType, rows, curves)


def _of_voc(counted):
    rows, curves, results = [], [], iter(counted.eval_results)
    for name, scores, objects in zip(counted.classes, counted.class_score_poss, counted.class_gt_counts):
        # Of a class without an object, or that is never found, ppdet has no result, and gives its name to the next.
        nothing = {"ap": 0.0 if objects else -1.0, "precision": [], "recall": []}
        result = next(results) if objects and len(scores) else nothing
        rows.append({"name": str(name), "objects": int(objects), "AP": float(result["ap"])})
        curves.append((result["recall"], result["precision"]))
    return ByClass("voc", rows, curves)


def _mean(values):
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _percent(value):
    return "-" if value < 0 else f"{value * 100:.1f}"
