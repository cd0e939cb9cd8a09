"""Keeps what a step that was not finite needs to be met again (`reproduce` repeats it), and says what was met."""

import glob
import os
from dataclasses import dataclass

import numpy as np
import paddle

from ppkd.errors import UserError
from ppkd.files.write import make_own_folder
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.seeds import step_seed

FOLDER = "nonfinite"
_KEPT = 3


@dataclass(frozen=True)
class Entry:
    """A batch that was done: its place (all from 0), its images' ids, itself where it is kept, and its losses."""

    epoch: int
    batch: int
    step: int
    images: object
    inputs: dict
    losses: dict

    def broken(self):
        """Names of the losses that are not finite; the sum only if no other is."""
        names = [name for name, value in self.losses.items() if not bool(paddle.isfinite(value).all())]
        return [name for name in names if name != "loss"] or names


class Reproducer:
    """Writes batches, random states and weights of steps that were not finite: the first three of a run.

    Args:
        model: the student or a `model.DistillModel`.
        folder: the run's.
        seed, rank: of the run.
    """

    def __init__(self, model, folder, seed, rank):
        self._model, self._folder, self._seed, self._rank = model, folder, seed, rank

    def report(self, entries, gradients, weights):
        """Save what is needed, and say what was met.

        Args:
            entries: list of `Entry`, those of the step.
            gradients: names of the parameters whose gradients are not finite.
            weights: whether the model's are still those of the step, so that they are kept.

        Returns:
            One line without a full stop.
        """
        broken = list(dict.fromkeys(name for entry in entries for name in entry.broken()))
        images = [int(i) for e in entries if e.images is not None for i in e.images.numpy().reshape(-1)]
        parts = [f"the loss{'es' if len(broken) > 1 else ''} {listed(broken)}"] if broken else []
        parts += [f"the gradients of {listed(gradients)}"] if gradients else []
        teachers = self._broken_sources([entry.inputs for entry in entries if entry.inputs])
        parts += [f"before that, what the teacher gave: {listed(teachers)}"] if teachers else []
        first = entries[0]
        place = f"epoch {first.epoch + 1}, batch {first.batch + 1}, step {first.step + 1}"
        path = self._save(entries, broken, weights)
        told = f"not finite in {place} (image ids {listed(images, 32)}): {'; '.join(parts) or 'the gradients'}"
        return told + (f"; to reproduce it: {path}" if path else "")

    def _broken_sources(self, batches):
        found = getattr(self._model, "broken_sources", None)
        return list(dict.fromkeys(name for batch in batches for name in found(batch))) if found else []

    def _save(self, entries, broken, weights):
        """Write batches, random states and (where they are still those of the step) weights; the path, or None."""
        folder = os.path.join(self._folder, FOLDER)
        epoch, batch = entries[0].epoch, entries[0].batch
        if len(glob.glob(os.path.join(glob.escape(folder), "*.pdparams"))) >= _KEPT:
            return None
        path = os.path.join(folder, f"epoch{epoch}_batch{batch}_rank{self._rank}.pdparams")
        content = {
            "epoch": epoch,
            "rank": self._rank,
            "seed": self._seed,
            "numbers": [entry.batch for entry in entries],
            "batches_of_epoch": getattr(self._model, "batches", None),
            "batches": [_arrays(entry.inputs or {}) for entry in entries],
            "losses": [{k: float(v) for k, v in entry.losses.items()} for entry in entries],
            "random": [step_seed(self._seed, e.epoch, e.batch, self._rank) for e in entries],
            "not_finite": broken,
            "model": _arrays(self._model.state_dict()) if weights else None,
        }
        try:
            make_own_folder(folder)
            checkpoint.write(path, content)
        except (OSError, UserError) as error:
            logger().warning("the batch to reproduce this is not saved: %s", error)
            return None
        return path


def _arrays(values):
    """Tensors as arrays, in dicts and lists."""
    if isinstance(values, dict):
        return {key: _arrays(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_arrays(value) for value in values]
    return values.numpy().copy() if isinstance(values, paddle.Tensor) else np.asarray(values)


def listed(names, most=6):
    """Names for a message, no more than so many of them."""
    rest = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {rest} more" if rest > 0 else "")
