"""Exponential moving average of the student's weights: ppdet's, over the student alone."""

import contextlib

import paddle

from ppkd.bridge.ppdet_average import average_of
from ppkd.losses.common import up
from ppkd.training.flat_average import FlatAverage


class Averaging:
    """Keeps an average of a student's tensors, if the config asks for it.

    Averages are of float32 and in float32 whatever type the student is trained in: in a lower one a step's share of
    them would be rounded away.

    Args:
        student: ppdet model.
        config: the run's config: ``use_ema`` and the ``ema_*`` keys.
        precision: `precision.Precision` that has prepared the student.
    """

    def __init__(self, student, config, precision):
        self._student, self._precision, self._own, self.ema = student, precision, None, None
        if not config.get("use_ema"):
            return
        with precision.whole():
            self.ema = average_of(student, config)
        self._flat = FlatAverage(self.ema)

    def update(self):
        """The student has taken a step."""
        if self.ema is not None:
            self._flat.update(_Wide(self._student, self._precision.masters()) if self._precision.lowers else None)

    @contextlib.contextmanager
    def applied(self, counts=True):
        """A block in which the student has the averaged weights, if there is an average; see `own`.

        Its weights are float32 there in any case, see `precision.Precision.whole`.

        Args:
            counts: whether this is one of the snapshots after ``cycle_epoch`` of which ppdet begins the average anew.
        """
        with self._precision.whole():
            if not self._begun():
                yield
                return
            self._own = {k: v.clone() for k, v in self._student.state_dict().items()}
            self._student.set_state_dict({**self._own, **self._average(counts)})
            try:
                yield
            finally:
                self._student.set_state_dict(self._own)
                self._own = None

    def _begun(self):
        """Whether there is an average: before its first step it is all zeros."""
        return self.ema is not None and self.ema.step > 0

    def begin_anew(self):
        """The student goes on from the averaged weights, and the average begins anew."""
        if self._begun():
            with self._precision.whole():
                self._student.set_state_dict({**self._student.state_dict(), **self._average(counts=False)})
            self.ema.reset()

    def own(self):
        """The student's own tensors by name, also while the averaged ones are applied."""
        return self._student.state_dict() if self._own is None else self._own

    def _average(self, counts):
        if counts:
            return _alone(self.ema.apply())
        epoch, cycle = self.ema.epoch, self.ema.cycle_epoch
        self.ema.cycle_epoch = -1
        try:
            return _alone(self.ema.apply())
        finally:
            self.ema.epoch, self.ema.cycle_epoch = epoch, cycle

    def state(self):
        """What resuming needs, or None."""
        ema = self.ema
        if ema is None:
            return None
        # ppdet's own resuming leaves out the decay of the last step, without which it cannot apply the average.
        decay, tensors = getattr(ema, "_decay", None), _alone(ema.state_dict)
        return {"step": ema.step, "epoch": ema.epoch, "decay": decay, "tensors": tensors}

    def restore(self, state):
        """Go on as `state` was."""
        if self.ema is not None and state is not None:
            self.ema.resume(state["tensors"], state["step"])
            self.ema.epoch, self.ema._decay = state["epoch"], state["decay"]


def _alone(tensors):
    """Copies by name that are no parts of a larger tensor, as `FlatAverage`'s are.

    Where NumPy asks for a part on a CPU, as saving does, Paddle copies the whole for it: 14 GB for 30 MB in 429 parts.
    """
    return {name: paddle.assign(x) for name, x in tensors.items()}


class _Wide:
    """A student's tensors as ppdet's average asks for them, in float32: the optimizer's where it has them so."""

    def __init__(self, student, masters):
        self._student, self._masters = student, masters

    def state_dict(self):
        # Frozen ones have no master, and before the first step that a loss scaler does not skip there is none at all.
        state = self._student.state_dict()
        return {name: self._masters[x.name] if x.name in self._masters else up(x) for name, x in state.items()}
