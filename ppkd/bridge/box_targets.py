"""What a reader makes of boxes, made again for boxes that are found when the batch is there already."""

import numpy as np
import paddle

from ppkd.bridge.ground_truth import CONSUMERS, FRAME, Keep
from ppkd.errors import UserError

# Of the steps that begin with Gt2 those that make their targets of boxes and classes alone.
_MADE_OF_BOXES = frozenset({"Gt2YoloTarget", "Gt2FCOSTarget", "Gt2GFLTarget", "Gt2TTFTarget"})
# These ask for masks or angles, which a teacher's boxes do not have.
_OF_MORE = frozenset({"Poly2Mask", "PadRGT"})
# It makes no more of boxes than they are, and of images that were padded before another mask.
_PADDING = "PadMaskBatch"
# These count a box by its score.
_BY_SCORE = "Gt2YoloTarget"


class BoxTargets:
    """The targets of a reader for boxes that it has not seen.

    Args:
        reader: ppdet's, after `ground_truth.keep_ground_truth`.

    Raises:
        UserError: the reader makes targets of more than boxes.
    """

    def __init__(self, reader):
        self._of_sample = _taken(reader._sample_transforms)
        self._of_batch = _taken(reader._batch_transforms)
        self._collated = reader._batch_transforms.collate_batch
        self._by_score = _BY_SCORE in map(_name, self._of_batch)

    def __call__(self, batch, found):
        """The batch with these boxes in place of its own.

        Args:
            batch: of the reader, with ``image`` (N, 3, H, W) and `FRAME` (N, 2).
            found: for each image ``(boxes, classes, scores)``: (n, 4) corners in pixels of the network input, (n,) from
                0, and (n,), the best first.

        Returns:
            ``(batch, counted)``: a new dict, and whether its targets themselves are worth the score of their box.
        """
        from ppdet.data.utils import default_collate_fn

        height, width = batch["image"].shape[2:]
        samples = [_sample(each, frame) for each, frame in zip(found, batch[FRAME].numpy())]
        for step in self._of_sample:
            samples = [step(sample) for sample in samples]
        for sample in samples:
            padded = (3, height, width) if sample["image"].shape[0] == 3 else (height, width, 3)
            sample["image"] = np.broadcast_to(np.float32(0), padded)
            if self._by_score:
                sample["gt_score"] = sample.pop("found_score")
        for step in self._of_batch:
            samples = step(samples)
        made = [{k: v for k, v in sample.items() if k not in ("image", "found_score")} for sample in samples]
        if self._collated:
            values = default_collate_fn(made)
        else:
            values = {key: [sample[key] for sample in made] for key in made[0]}
            values |= {key: np.stack(value) for key, value in values.items() if not _listed(key)}
        return {**batch, **{key: _tensors(value) for key, value in values.items()}}, self._by_score


def _taken(transforms):
    steps = list(getattr(transforms, "transforms_cls", ()))
    for name in map(_name, steps):
        if name in _OF_MORE or (name.startswith("Gt2") and name not in _MADE_OF_BOXES):
            raise UserError(
                f"distill.pseudo_boxes: the reader's {name} makes targets of more than the boxes and classes that a "
                "teacher's detections are: terms do without (leave pseudo_boxes out)"
            )
    return [step for step in steps if isinstance(step, Keep) or _is_taken(_name(step))]


def _is_taken(name):
    return name == "Permute" or name.startswith("Gt2") or (name in CONSUMERS and name != _PADDING)


def _name(step):
    return getattr(step, "__name__", type(step).__name__)


def _sample(found, frame):
    boxes, classes, scores = found
    shape = (*np.maximum(np.rint(frame), 1).astype(int), 3)
    return {
        "image": np.broadcast_to(np.float32(0), shape),
        FRAME: np.asarray(frame, "float32"),
        "gt_bbox": np.array(boxes, "float32").reshape(-1, 4),
        "gt_class": np.array(classes, "int32").reshape(-1, 1),
        "is_crowd": np.zeros((len(boxes), 1), "int32"),
        "found_score": np.array(scores, "float32").reshape(-1, 1),
    }


def _listed(key):
    """Whether a batch that is not collated has a list under this key, as ppdet's has."""
    return "gt_" in key or "is_crowd" in key


def _tensors(value):
    return [paddle.to_tensor(each) for each in value] if isinstance(value, list) else paddle.to_tensor(value)
