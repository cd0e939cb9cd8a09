"""Moments of its own for the distillation's gradient, so that its strength is a share of the update."""

import paddle

from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training.optimizing import Optimizing

_KINDS = ("Adam", "AdamW")


class Moments:
    """With ``distill.moments: apart`` the optimizer sees the detection loss's gradient alone, and a second one, Adam
    with the same settings, the distillation's.

    Adam divides a gradient by the root of a running mean of its squares. Where both gradients are in one mean, the
    stronger one sets the length of both steps: under strong terms, and for a thousand steps after their end, the
    detection loss moves the weights by a fraction of what it would alone. Each with its own, the update is the sum of
    two of full length, the distillation's times ``update_share``. How large terms are says then only how they stand to
    each other; what their schedules say is a factor on the share (the highest, where they have different ones).

    The student's weights alone are moved so: connectors and learnable losses get no gradient but the distillation's,
    and stay with the optimizer. The weights' decay is its, too.

    Args:
        optimizer: Paddle's.
        rate: its schedule of the learning rate.
        distill: `model.DistillModel`, or None.
        precision: `precision.Precision`.

    Attributes:
        apart: whether there are such moments.

    Raises:
        UserError: another optimizer than Adam and AdamW, or weights or gradients of lower precision.
    """

    def __init__(self, optimizer, rate, distill, precision):
        self._distill, self._precision = distill, precision
        self.apart = distill is not None and distill.parting.share is not None
        if not self.apart:
            return
        _check(optimizer, precision)
        self._students = [p for p in distill.student.parameters() if not p.stop_gradient]
        self._own = {id(p) for p in self._students}
        same = {key: float(getattr(optimizer, f"_{key}")) for key in ("beta1", "beta2", "epsilon")}
        adam = _Undecayed(rate, parameters=self._students, **same)
        self._optimizing = Optimizing(adam, rate)
        size = sum(2 * 4 * p.size for p in self._students) / 2**20
        logger().info("distill.moments: apart: %.1f MB more for the distillation's moments", size)

    @property
    def share(self):
        """How long the distillation's step is beside the detection loss's in this epoch; 0 if no term is on."""
        return self._distill.strength * self._distill.parting.share

    @property
    def optimizer(self):
        """Paddle's, of the distillation's gradient."""
        return self._optimizing.optimizer

    def own(self, parted):
        """Those of `parted` that are the student's."""
        return [each for each in parted if id(each.parameter) in self._own]

    def split(self, parted):
        """Leave the optimizer what is its: of the student the detection loss's gradient, of all else the whole.

        Args:
            parted: list of `gradient_parts.Parted`.
        """
        for each in parted:
            own = self.apart and id(each.parameter) in self._own
            each.parameter.grad = each.own if own else each.own + each.theirs

    def step(self, parted, factor):
        """Take the distillation's step, after the optimizer's; its gradients are the parameters' afterwards.

        Args:
            parted: as `split` got it; nothing is done without any.
            factor: on the learning rate of this step.
        """
        if not (self.apart and parted):
            return
        for each in self.own(parted):
            each.parameter.grad = each.theirs / self._distill.strength
        self._optimizing.step(self._precision, factor * self.share)

    def forget(self, squares):
        """Begin anew, as `Optimizing.forget`."""
        if self.apart:
            self._optimizing.forget(squares)

    def state(self):
        """What resuming needs, or None."""
        return self._optimizing.state() if self.apart else None

    def restore(self, state):
        """Go on as `state` was; None is that of a run without."""
        if self.apart and state is not None:
            self._optimizing.restore(state)


class _Undecayed(paddle.optimizer.Adam):
    """Adam that lets be what weights say of their own decay (``ParamAttr``, ``param_groups``): the other has it."""

    def append_regularization_ops(self, parameters_and_grads, regularization=None):
        return parameters_and_grads


def _check(optimizer, precision):
    name = type(optimizer).__name__
    if name not in _KINDS:
        raise UserError(
            f"distill.moments: apart is for {' and '.join(_KINDS)}, which divide a gradient by a mean of its squares; "
            f"{name} does not, or by more than that, and there the weights of the terms say how long their step is "
            "(OptimizerBuilder.optimizer)"
        )
    if precision.scales:
        raise UserError("distill.moments: apart is not for float16, whose gradients are scaled; bfloat16 is fine")
    if precision.on and precision.level == "O2":
        raise UserError("distill.moments: apart is not for amp_level O2, whose optimizer keeps the weights in float32")
