"""Ends a run whose AP has stopped rising: ``patience: N`` evaluations in a row that were not the best."""

from ppkd.errors import UserError
from ppkd.losses.ranks import any_of_them
from ppkd.training.batch_size import count


class Patience:
    """Counts evaluations since the best one; a part of a run's state.

    Args:
        config: the run's; without ``patience``, or with 0, nothing ends early.
        validate: whether the run evaluates.

    Raises:
        UserError: no number of evaluations, or a run that does not evaluate.
    """

    def __init__(self, config, validate):
        self._most, self.since = count(config, "patience", 0), 0
        if self._most and not validate:
            raise UserError(f"patience: {self._most} counts evaluations, and this run makes none: add --eval")

    def note(self, better):
        """An evaluation was made; `better` than all before it or not."""
        self.since = 0 if better else self.since + 1

    def over(self):
        """Whether the run is to end; to be asked by all ranks at once, of which the first alone evaluates."""
        return bool(self._most) and any_of_them(self.since >= self._most)

    def state(self):
        """What resuming needs."""
        return {"since": self.since}

    def restore(self, state):
        """Go on as `state` was; None is a state of before there was any."""
        self.since = int((state or {}).get("since", 0))
