"""Evaluates the snapshots of a run and keeps the best of them."""

import contextlib
import os

from paddle import distributed as dist

from ppkd.bridge.bad_images import BadImages
from ppkd.bridge.datasets import check_sets
from ppkd.bridge.workspace import create
from ppkd.detectors.found import check_post_process
from ppkd.files.tensor_files import read_weights
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.evaluation import check_reader, evaluate, summary
from ppkd.training.sharing import as_first_rank, gathered


class Validation:
    """Evaluates a run's student; several processes do it together, each its part of the images.

    Args:
        recipe: `recipe.Recipe`.
        table: ppdet's global config inside `workspace.scope`.
        standing: `standing.Standing`, whose ``best`` and ``to_evaluate`` follow.
        student: ppdet model.
        names: of the classes, for the file beside the best weights.
        log: `runlog.RunLog`.
        patience: `patience.Patience`, which counts along.
    """

    def __init__(self, recipe, table, standing, student, names, log, patience):
        check_post_process(student)  # before a step, not after an epoch
        self._table, self._standing, self._student, self._names, self._log = table, standing, student, names, log
        self._patience = patience
        self._folder, self._bad = recipe.output_dir, BadImages(recipe.student, "validation", ends=False)
        self._ranks, self._first = dist.get_world_size(), dist.get_rank() == 0

    @staticmethod
    def check(recipe):
        """Refuse what would fail after the first epoch.

        Returns:
            Paths of the images.

        Raises:
            UserError: readers or sets that cannot be evaluated with.
        """
        check_reader(recipe.student)
        create("EvalReader")
        return check_sets(recipe.student)

    def evaluate(self):
        """Evaluate the student as it is, and keep its weights if they are the best so far."""
        shared, at = self._ranks > 1, self._standing
        with as_first_rank(self._student) if shared else contextlib.nullcontext():
            results = evaluate(self._student, self._table, bad=self._bad, shared=shared)
        at.to_evaluate = None
        if self._first:
            logger().info("epoch %d: %s", at.epoch, summary(results))
            self._log.add({"kind": "eval", "epoch": at.epoch, "step": at.step, **results})
        score = next(iter(results.values()), 0.0)
        self._patience.note(score > at.best)
        if score > at.best:
            at.best = score
            if self._first:
                checkpoint.save(self._folder, "best_model", self._student.state_dict(), None, self._names)
        return results

    def evaluate_what_was_not(self, whole):
        """Evaluate the snapshot that a resumed run was ended before or while it did.

        Args:
            whole: function to a block in which the student takes its weights, see `precision.Precision.whole`.
        """
        path = os.path.join(self._folder, f"{self._standing.to_evaluate}.pdparams")
        there = bool(self._standing.to_evaluate) and os.path.exists(path)
        # The first decides, for it may be the only one that sees the folder.
        if not (there if self._ranks == 1 else gathered(there)[0]):
            return {}
        with whole():
            raw = {k: v.clone() for k, v in self._student.state_dict().items()}
            if self._first:
                self._student.set_state_dict(read_weights(path))
            try:
                return self.evaluate()
            finally:
                self._student.set_state_dict(raw)
