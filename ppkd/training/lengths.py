"""How far each of the two losses moves the student's weights, as the optimizer scales its gradient."""

import paddle

_KINDS = ("Adam", "AdamW")


class Lengths:
    """Measures the two parts of an update of Adam's, in units of the learning rate.

    A part's length is the root of the mean over all of the student's weights of ``(g / (sqrt(v) + eps))^2``, where
    ``g`` is its clipped gradient in this step and ``v`` the mean of squares that the optimizer divides by, without its
    bias: what this step's gradient does by itself, before momentum averages it over ten steps or so. Where a strong
    second gradient is in ``v``, the first one's length falls.

    Args:
        optimizer: Paddle's; nothing is measured if it is not Adam or AdamW.
        students: the parameters that count: the student's.
        clipping: `clipping.Clipping`.
        moments: `moments.Moments`.
        scales: whether there is a loss scaler, which scales the whole gradient and not its part: nothing is measured.

    Attributes:
        possible: whether anything is measured.
    """

    def __init__(self, optimizer, students, clipping, moments, scales):
        self._optimizer, self._students, self._clipping, self._moments = optimizer, students, clipping, moments
        self.possible = type(optimizer).__name__ in _KINDS and not scales
        self._parts, self._found = None, {}

    def begin(self, parted):
        """Note the gradients of a step that is measured, before the optimizer takes it.

        Args:
            parted: list of `gradient_parts.Parted`, clipped if they are clipped apart; empty without distillation.
        """
        students = [p for p in self._students if p.grad is not None]
        if not parted:
            factors = self._clipping.factors([(p, p.grad) for p in students])
            self._parts = {"detection": [(p, p.grad.clone(), factor) for p, factor in zip(students, factors)]}
            return
        ids = {id(p) for p in students}
        factors = self._clipping.factors([(each.parameter, each.own + each.theirs) for each in parted])
        mine = [(each, factor) for each, factor in zip(parted, factors) if id(each.parameter) in ids]
        self._parts = {
            "detection": [(each.parameter, each.own, factor) for each, factor in mine],
            "distillation": [(each.parameter, each.theirs, factor) for each, factor in mine],
        }

    def end(self):
        """The optimizer has taken the step."""
        parts, self._parts = self._parts or {}, None
        for name, gradients in parts.items():
            apart = name == "distillation" and self._moments.apart
            length = _length(self._moments.optimizer if apart else self._optimizer, gradients)
            self._found[f"{name}.update"] = length * self._moments.share if apart else length

    def take(self):
        """What was measured since the last call: ``detection.update`` and, with terms, ``distillation.update``."""
        found, self._found = self._found, {}
        return {name: float(length) for name, length in found.items()}


def _length(optimizer, gradients):
    total, count = paddle.zeros([]), 0
    with paddle.no_grad():
        for p, gradient, factor in gradients:
            squares, power = (optimizer._get_accumulator_master(name, p) for name in ("moment2", "beta2_pow_acc"))
            bias = 1 - power.astype("float32") / float(optimizer._beta2)
            scale = (squares.astype("float32") / bias).sqrt() + float(optimizer._epsilon)
            total = total + (gradient.astype("float32") * factor / scale).square().sum()
            count += p.size
    return (total / max(count, 1)).sqrt()
