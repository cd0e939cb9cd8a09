"""Repeats a step that was not finite, from what `reproducer.Reproducer` kept of it."""

import numpy as np
import paddle

from ppkd.build import build_model
from ppkd.engine.model import DistillModel
from ppkd.files.tensor_files import read_tensors


def reproduce(recipe, path):
    """Go through the forward of a step's batches again, with its random numbers and, where they were kept, its weights.

    Args:
        recipe: `recipe.Recipe` of the run.
        path: a file of the run's folder ``nonfinite``; somebody else's will do, it runs nothing.

    Returns:
        Losses by name for each batch: tensors, whose ``backward()`` gives the gradients.

    Raises:
        UserError: the file cannot be read.
        Exception: whatever the forward raised then, such as Paddle's ValueError where a binary cross-entropy gets NaN.
    """
    saved = read_tensors(path)
    model = build_model(recipe, load=saved["model"] is None)
    if saved["model"] is not None:
        model.set_state_dict(saved["model"])
    model.train()
    if isinstance(model, DistillModel):
        model.enter(saved["epoch"])
        model.batches = saved["batches_of_epoch"]
    found = []
    for number, seed, batch in zip(saved["numbers"], saved["random"], saved["batches"]):
        model.batch = number
        paddle.seed(seed)
        found.append(model({**_tensors(batch), "epoch_id": saved["epoch"]}))
    return found


def _tensors(values):
    """Arrays as tensors, in dicts and lists."""
    if isinstance(values, dict):
        return {key: _tensors(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_tensors(value) for value in values]
    return paddle.to_tensor(values) if isinstance(values, np.ndarray) else values
