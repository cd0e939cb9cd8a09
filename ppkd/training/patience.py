"""Ends a run whose AP has stopped rising: ``patience: N`` evaluations in a row that were not the best."""

import paddle
from paddle import distributed as dist

from ppkd.errors import UserError
from ppkd.training.batch_size import count


class Patience:
    """Counts evaluations since the best one; a part of a run's state.

    Args:
        config: the run's; without ``patience``, or with 0, nothing ends early.
        validate: whether the run evaluates.
        ranks: number of processes, of which the first alone evaluates.

    Raises:
        UserError: no number of evaluations, or a run that does not evaluate.
    """

    def __init__(self, config, validate, ranks=1):
        self._most, self._ranks, self.since = count(config, "patience", 0), ranks, 0
        if self._most and not validate:
            raise UserError(f"patience: {self._most} counts evaluations, and this run makes none: add --eval")

    def note(self, better):
        """An evaluation was made; `better` than all before it or not."""
        self.since = 0 if better else self.since + 1

    def over(self):
        """Whether the run is to end; to be asked by all ranks at once."""
        over = bool(self._most) and self.since >= self._most
        if self._most and self._ranks > 1:
            told = paddle.to_tensor([float(over)])
            dist.all_reduce(told, op=dist.ReduceOp.MAX)
            over = bool(told.item())
        return over

    def state(self):
        """What resuming needs."""
        return {"since": self.since}

    def restore(self, state):
        """Go on as `state` was; None is a state of before there was any."""
        self.since = int((state or {}).get("since", 0))
