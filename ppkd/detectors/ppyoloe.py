"""PP-YOLOE and PP-YOLOE+: one output convolution a level, from the coarsest level to the finest."""

import contextlib
from functools import partial

import paddle
import paddle.nn.functional as F

from ppkd.bridge.grid import grid_of
from ppkd.detectors.base import TARGETS, Detector
from ppkd.detectors.context import Assignment
from ppkd.detectors.decoding import expected_distances
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Rung, Tower, apply_pooled

# Where the head looks for targets that somebody else has assigned; ppdet's own distillation puts them there. The mask,
# which the wheel's head only hands on to that, is None.
_GIVEN = ("assigned_labels", "assigned_bboxes", "assigned_scores", "mask_positive")
_ASSIGNED = 3  # labels, boxes and scores; the wheel's assigners return a mask beside them, those of clones do not


class PPYOLOE(Detector):
    """Adds ``head.cls[i]`` (class logits), ``head.box_dist[i]`` (logits of the edge distributions), ``head.ltrb[i]``
    (their expectations) and the towers, of one layer each.
    """

    head_name = "yolo_head"
    abilities = frozenset({TARGETS})
    assigners = ("yolo_head.static_assigner", "yolo_head.assigner")

    @classmethod
    def fits(cls, model):
        return type(getattr(model, "yolo_head", None)).__name__ == "PPYOLOEHead"

    @property
    def cell_offset(self):
        return self.head.grid_cell_offset

    @property
    def first_bin(self):
        return self.head.reg_range[0]

    def aliases(self):
        edges = partial(expected_distances, first_bin=self.first_bin)
        return {
            **super().aliases(),
            "head.cls": lambda i: Tap(f"yolo_head.pred_cls.{i}"),
            "head.box_dist": lambda i: Tap(f"yolo_head.pred_reg.{i}"),
            "head.ltrb": lambda i: Tap(f"yolo_head.pred_reg.{i}", derive=edges),
        }

    def towers(self):
        # The class stem's output is added to its input outside of any module: only the next one is given the sum.
        stem, given = (lambda i: Tap(f"yolo_head.stem_cls.{i}")), (lambda i: Tap(f"yolo_head.pred_cls.{i}", argument=0))
        classes = Rung(stem, _beside_input, given)
        return {
            "head.cls": Tower("head.cls_tower", (classes,)),
            "head.box_dist": Tower("head.box_tower", (Rung(lambda i: Tap(f"yolo_head.stem_reg.{i}"), apply_pooled),)),
        }

    def assigned(self, recorder):
        """The `Assignment` that the head's loss used while `recorder` recorded `assigners`, or None if it made none."""
        made = [output for path in self.assigners for output in recorder.outputs[path]]
        return Assignment(*made[-1][:_ASSIGNED], background=self.head.num_classes) if made else None

    def outputs(self):
        """Taps of the head's class logits, then of its edge distributions, of all levels: what `assign` reads."""
        aliases = self.aliases()
        return [aliases[name](i) for name in ("head.cls", "head.box_dist") for i in range(len(self.head.fpn_strides))]

    def assigns_by_prediction(self, batch):
        """Whether the head's loss assigns this batch's targets by what is predicted, not by geometry alone."""
        return batch["epoch_id"] >= self.head.static_assigner_epoch

    def assign(self, recorder, batch):
        """Assign the batch's targets to the predictions that `recorder` recorded.

        Args:
            recorder: holds all of `outputs`.
            batch: ppdet's batch.

        Returns:
            `Assignment`.
        """
        head, levels = self.head, len(self.head.fpn_strides)
        maps = [recorder.take(tap) for tap in self.outputs()]
        classes, edges = maps[:levels], maps[levels:]
        points, counts, strides = grid_of(head, classes)
        scores, edges = (
            paddle.concat([x.flatten(2).transpose([0, 2, 1]).astype("float32") for x in maps], axis=1)
            for maps in (classes, edges)
        )
        boxes = head._bbox_decode(points / strides, edges) * strides
        places = strides if head.sm_use else counts
        truth = (batch["gt_class"], batch["gt_bbox"], batch["pad_gt_mask"])
        made = head.assigner(F.sigmoid(scores), boxes, points, places, *truth, bg_index=head.num_classes)
        return Assignment(*made[:_ASSIGNED], background=head.num_classes)

    @contextlib.contextmanager
    def given(self, assignment):
        """Inside the block the head takes `assignment` where it would assign by prediction; None changes nothing."""
        values = () if assignment is None else (assignment.labels, assignment.boxes, assignment.scores, None)
        for name, value in zip(_GIVEN, values):
            setattr(self.head, name, value)
        try:
            yield
        finally:
            for name in _GIVEN[: len(values)]:
                delattr(self.head, name)


def _beside_input(model, tap, x):
    return apply_pooled(model, tap, x) + x
