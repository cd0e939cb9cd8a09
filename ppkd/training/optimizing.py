"""The optimizer with its schedule, and what resuming needs of it beyond what Paddle keeps."""

import contextlib

import paddle
from paddle.utils import unique_name

from ppkd.errors import UserError

# What these optimizers keep of former gradients, by the end of a tensor's name, and what it begins with: zeros, or what
# an attribute holds. Means of gradients, and means of their squares.
_KNOWN = ("SGD", "Momentum", "Adam", "AdamW", "AdamWDL", "Lamb", "RMSProp")
_FIRST = {"moment1": None, "velocity": None, "momentum": None, "beta1_pow_acc": "_beta1"}
_SECOND = {"moment2": None, "moment2_max": None, "beta2_pow_acc": "_beta2", "mean_square": None, "mean_grad": None}
# What Paddle's optimizers call their schedule.
_RATE = "LR_Scheduler"


class Optimizing:
    """Lets the optimizer take its steps.

    Args:
        optimizer: Paddle's.
        rate: its schedule of the learning rate.
    """

    def __init__(self, optimizer, rate):
        self.optimizer, self.rate = optimizer, rate
        # The state that a run went on from, until its first step: Paddle's optimizer does not have it before.
        self._resumed = None

    def step(self, precision, factor=1.0):
        """Take a step with the gradients that there are.

        Args:
            precision: `precision.Precision`.
            factor: on the learning rate of this step.
        """
        # Paddle numbers an optimizer's tensors, made in its first step, through the whole process; counted afresh,
        # the state that resuming reads has the same names whatever was trained before in either process.
        with unique_name.guard(), self._scaled(factor):
            precision.step(self.optimizer)
        self._resumed = None

    @contextlib.contextmanager
    def _scaled(self, factor):
        rate = self.rate.last_lr
        self.rate.last_lr = rate * factor
        try:
            yield
        finally:
            self.rate.last_lr = rate  # some schedules go on from it

    def check_forgets(self):
        """Refuse an optimizer of which it is not known what it keeps.

        Raises:
            UserError: see above.
        """
        name = type(self.optimizer).__name__
        if name not in _KNOWN:
            raise UserError(
                f"OptimizerBuilder.optimizer: what {name} keeps of former gradients is not known, so it cannot be "
                f"forgotten (restart_epochs, distill.hand_over); of {', '.join(_KNOWN)} it is"
            )

    def forget(self, squares):
        """Begin anew what the optimizer keeps of former gradients.

        Args:
            squares: the means of their squares too.
        """
        state, anew = self.state(), {}
        for kept, holder in (_FIRST | (_SECOND if squares else {})).items():
            start = float(getattr(self.optimizer, holder)) if holder and hasattr(self.optimizer, holder) else 0.0
            names = [name for name in state if name.endswith(f"_{kept}_0")]
            anew |= {name: paddle.full_like(state[name], start) for name in names}
        if self._resumed is not None:
            self.restore(state | anew)
            return
        # In place: an optimizer that has taken a step and is given a state has no room for what it makes later, of
        # parameters that had no gradient so far.
        for name, value in anew.items():
            state[name].set_value(value)

    def end(self):
        """A step is over, whether it was taken or not: the schedule goes by steps."""
        self.optimizer.clear_grad()
        self.rate.step()

    def state(self):
        """What resuming needs: moments and the schedule."""
        state = dict(self._resumed or self.optimizer.state_dict())
        # The schedule goes on also where no step was taken since: all were skipped, or no term is on.
        return state | ({_RATE: self.rate.state_dict()} if _RATE in state else {})

    def restore(self, state):
        """Go on as `state` was."""
        self._resumed = state
        self.optimizer.set_state_dict(state)


class Moving:
    """Which parameters an optimizer moves.

    Clearing leaves zeros for a gradient, and with them a parameter goes on by momentum and decay through steps that do
    not reach it; without any it would stand still.

    Args:
        parameters: all that are trained.
    """

    def __init__(self, parameters):
        self._parameters = parameters

    def state(self):
        """Names of those that have had a gradient."""
        return [p.name for p in self._parameters if p.grad is not None]

    def restore(self, state):
        """Give those of `state` a gradient of zeros."""
        for p in self._parameters:
            if p.name in state:
                p.grad = paddle.zeros_like(p)
