"""Run by test_distributed.py on two ranks (`helpers_ranks`): trains a recipe, and tells what each rank has then."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import ppkd  # noqa: F401, I001  # before paddle
import paddle

from ppkd.detectors import recorders
from ppkd.bridge.ground_truth import BOXES, VALID
from ppkd.bridge.unlabelled import KEY
from ppkd.recipe.recipe import load_recipe
from ppkd.training.trainer import Trainer
from tests.helpers_ranks import main
from tests.helpers_training import settle


def train(config, slim, overrides, empty_rank=None, settled=False, of_first=None):
    """Train a recipe to its end; what this rank has then.

    Args:
        empty_rank: rank that gets images without a box, from its second step on.
        of_first: the thresholds of a teacher's boxes, which the first rank alone is told.
        settled: whether norm layers stay in eval mode, so that no image depends on the others of its batch.
    """
    loaded = load_recipe(config, slim, overrides)
    images, beside, fired, original = [], [], [], recorders._record
    thresholds = of_first if int(os.environ.get("PADDLE_TRAINER_ID", 0)) == 0 else {}
    with Trainer.open(loaded, thresholds=thresholds) as trainer:
        if settled:
            settle(trainer.student)
            trainer.model.train = lambda: None
        before = parameters(trainer)
        step = trainer._train_batch

        def watched(batch):
            images.append(batch["image"].numpy().sum())
            if KEY in batch:
                beside.append(batch[KEY]["image"].numpy().sum())
            if trainer.rank == empty_rank and len(images) > 1:
                batch = without_boxes(batch)
            return step(batch)

        def record(*args):
            fired.append(1)
            return original(*args)

        trainer._train_batch, recorders._record = watched, record
        try:
            trainer.run()
        finally:
            recorders._record = original
    models = [trainer.student, *trainer.distill.teachers.values()]
    hooks = sum(len(layer._forward_post_hooks) for model in models for layer in model.sublayers(True))
    return {
        "before": before, "after": parameters(trainer), "buffers": buffers(trainer),
        "images": images, "beside": beside, "fired": len(fired), "hooks": hooks,
        "magnitudes": [[*layer.sums.tolist(), int(layer.count)] for layer in trainer.distillation.magnitudes],
        "steps": trainer.step, "wrapped": type(trainer.model).__name__,
    }  # fmt: skip


def parameters(trainer):
    """The learned tensors of student and terms, copied."""
    parts = {"student": trainer.student, "terms": trainer.distillation}
    named = {f"{part}.{n}": p for part, layer in parts.items() for n, p in layer.named_parameters() if p.trainable}
    return {name: p.clone().detach() for name, p in named.items()}


def buffers(trainer):
    """What the terms count beside what they learn, copied."""
    return {name: tensor.clone() for name, tensor in trainer.distillation.named_buffers()}


def without_boxes(batch):
    """The batch as if no image had a box: padding where the reader pads, empty lists where it does not."""
    result = dict(batch)
    targets = [key for key in batch if key.startswith("target")]  # YOLOv3's
    for key in ("gt_bbox", "gt_class", "pad_gt_mask", BOXES, VALID, *targets):
        if isinstance(batch.get(key), list):
            result[key] = [rows[:0] for rows in batch[key]]
        elif key in batch:
            result[key] = paddle.zeros_like(batch[key])
    return result


if __name__ == "__main__":
    main(train)
