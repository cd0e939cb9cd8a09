"""The optimizer with its schedule, and what resuming needs of it beyond what Paddle keeps."""

import paddle
from paddle.utils import unique_name


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

    def step(self, precision):
        """Take a step with the gradients that there are.

        Args:
            precision: `precision.Precision`.
        """
        # Paddle numbers an optimizer's tensors, made in its first step, through the whole process; counted afresh,
        # the state that resuming reads has the same names whatever was trained before in either process.
        with unique_name.guard():
            precision.step(self.optimizer)
        self._resumed = None

    def end(self):
        """A step is over, whether it was taken or not: the schedule goes by steps."""
        self.optimizer.clear_grad()
        self.rate.step()

    def state(self):
        """What resuming needs: moments and the schedule."""
        return self._resumed or self.optimizer.state_dict()

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
