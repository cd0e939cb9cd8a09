"""What a run writes of itself, and what it goes on from: weights and resume state, of all its parts."""

import os

from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training import checkpoint
from ppkd.training.batch_size import count


class Saving:
    """Writes a run's checkpoints; the first process writes, of what all of them have.

    Args:
        config: the run's, with ``keep`` and ``keep_resume``.
        output_dir: path of the run's folder.
        rank: of this process.
        marks: ``digest`` and ``names``, as a resume file has them.
        student: ppdet model.
        standing: `standing.Standing`.
        parts: `parts.Parts`, whose ``ema``, ``numerics`` and ``of_ranks`` have a say in it.
    """

    def __init__(self, config, output_dir, rank, marks, student, standing, parts):
        self._keep = [count(config, *key) for key in (("keep", 0), ("keep_resume", 1))]
        self._folder, self._rank, self._marks = output_dir, rank, marks
        self._student, self._standing, self._parts = student, standing, parts

    def save(self, name):
        """Write a checkpoint that is not evaluated."""
        with self._parts["ema"].applied(counts=False):
            self.write(name)

    def write(self, name):
        """Write weights, averaged if they are just now, and resume state."""
        numerics = self._parts["numerics"]
        self._parts["of_ranks"].gather()
        if self._rank:
            return
        state, resume = self._student.state_dict(), self.state()
        numerics.check()
        numerics.check_weights((state, resume["student"], resume["terms"]), name)
        checkpoint.save(self._folder, name, state, resume, self._marks["names"])
        logger().info("saved %s", os.path.join(self._folder, name + ".pdparams"))

    def keep_newest(self, written):
        """Remove what is more than ``keep`` and ``keep_resume``, but not what was written just now."""
        if self._rank == 0:
            checkpoint.keep_newest(self._folder, *self._keep, written)

    def state(self):
        """Everything that resuming needs: a run that goes on from it is the run that never stopped.

        Random numbers need no state: what is drawn depends on seed, epoch, batch and rank.
        """
        return {**self._marks, **self._standing.state(), **self._parts.state()}

    def restore(self, state):
        """Go on as `state` was."""
        at = self._standing
        self._parts.restore(state)
        if state["batch"] > at.batches:
            raise UserError(f"-r: the resume file stands at batch {state['batch']} of {at.batches}")
        at.restore(state)
        logger().info("resumed after epoch %d, batch %d, step %d", at.epoch, at.batch, at.step)
