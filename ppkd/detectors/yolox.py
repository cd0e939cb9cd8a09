"""YOLOX: a branch of convolutions a level for the classes, and one for box and objectness together."""

import contextlib
from functools import partial

import paddle

from ppkd.bridge.ground_truth import BOXES, FRAME
from ppkd.detectors.base import Detector
from ppkd.detectors.decoding import boxes_at_points, channels
from ppkd.detectors.taps import Tap
from ppkd.detectors.towers import Rung, Tower
from ppkd.losses.kernels import numbers


class YOLOX(Detector):
    """Adds ``head.cls[i]``, ``head.box[i]`` (x, y, log w, log h) and ``head.objectness[i]``, all raw, ``head.ltrb[i]``
    and the towers.
    """

    cell_offset = 0.0

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "YOLOX"

    def aliases(self):
        return {
            **super().aliases(),
            # The last of a branch's three convolutions.
            "head.cls": lambda i: Tap(f"head.conv_cls.{i}.2"),
            "head.box": lambda i: Tap(f"head.conv_reg.{i}.2", derive=partial(channels, begin=0, end=4)),
            "head.ltrb": lambda i: Tap(f"head.conv_reg.{i}.2", derive=boxes_at_points),
            "head.objectness": lambda i: Tap(f"head.conv_reg.{i}.2", derive=partial(channels, begin=4, end=5)),
        }

    def towers(self):
        # The stem is the first layer of both.
        classes, boxes = (
            tuple(Rung(partial(_layer, path)) for path in ("stem_conv.{}", f"{branch}.{{}}.0", f"{branch}.{{}}.1"))
            for branch in ("conv_cls", "conv_reg")
        )
        return {
            "head.cls": Tower("head.cls_tower", classes),
            "head.box": Tower("head.box_tower", boxes),
            "head.objectness": Tower("head.box_tower", boxes),
        }

    def state(self):
        return {"step": self.model._step, "size": [int(n) for n in self.model._input_size]}

    def restore(self, state):
        self.model._step, self.model._input_size = state["step"], paddle.to_tensor(state["size"])

    @contextlib.contextmanager
    def prepared(self, batch):
        """Resize the batch here, as the model would inside of its forward: the teacher has to see what it sees."""
        model = self.model
        # The model scales boxes in place. Where there are none, Paddle 2 can neither copy nor multiply them.
        batch = {**batch, "gt_bbox": [boxes.clone() if boxes.shape[0] else boxes for boxes in batch["gt_bbox"]]}
        before = batch["image"].shape[2:]
        model.inputs = batch
        model._preprocess()
        ratio = [after / size for after, size in zip(batch["image"].shape[2:], before)]
        if BOXES in batch and batch[BOXES].shape[1]:
            batch[BOXES] = batch[BOXES] * numbers([*ratio[::-1], *ratio[::-1]], batch[BOXES])
        for key in {"im_shape", FRAME} & set(batch):
            batch[key] = batch[key].astype("float32") * numbers(ratio, batch[key])
        model._preprocess = _done
        try:
            yield batch
        finally:
            del model._preprocess


def _done():
    pass


def _layer(path, i):
    return Tap(f"head.{path.format(i)}")
