"""The two parts of a step's gradient, taken apart: the detection loss's and the distillation's."""

from dataclasses import dataclass

import paddle

from ppkd.losses.ranks import averaged


@dataclass
class Parted:
    """The gradient of one parameter.

    Attributes:
        parameter: whose.
        own: the detection loss's part: what is left of the whole. Where it is less than a millionth of the other, it is
            what rounding leaves.
        theirs: the distillation's.
    """

    parameter: object
    own: object
    theirs: object


class GradientParts:
    """Keeps the distillation's part of a step's gradient.

    It takes a second backward pass, through the terms and what lies below their sources.

    Args:
        parameters: all that are trained.
        distill: `model.DistillModel`, or None.
    """

    def __init__(self, parameters, distill):
        self._parameters, self._distill, self._kept = parameters, distill, None

    def part(self, losses):
        """The distillation's part of a batch's loss, or None if there is none.

        Args:
            losses: of a training step, by name.
        """
        return self._distill.part(losses) if self._distill is not None else None

    def keep(self, part):
        """Keep the gradient of a batch's distillation; the graph stays, for the whole loss is to go backward after it.

        Args:
            part: what `part` gave, as it enters the loss.
        """
        found = paddle.grad(part, self._trained(), retain_graph=True, allow_unused=True)
        if self._kept is None:
            self._kept = found
        else:
            self._kept = [a if b is None else b if a is None else a + b for a, b in zip(self._kept, found)]

    def _trained(self):
        return [p for p in self._parameters if not p.stop_gradient]

    def forget(self):
        """The step is not taken."""
        self._kept = None

    def take(self):
        """The parts of what has a gradient, once, after the last backward pass of a step; none if nothing was kept.

        Returns:
            List of `Parted`.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return []
        pairs = [(p, g) for p, g in zip(self._trained(), kept) if p.grad is not None]
        with paddle.no_grad():
            # In the order of the parameters, with zeros, since all ranks have to take part in every one.
            theirs = [averaged(paddle.zeros_like(p) if g is None else g) for p, g in pairs]
            return [Parted(p, p.grad - g, g) for (p, _), g in zip(pairs, theirs)]


def norm(gradients):
    """The Euclidean norm of all gradients together, a scalar; without any, 0."""
    squares = [g.astype("float32").square().sum() for g in gradients]
    return paddle.stack(squares).sum().sqrt() if squares else paddle.zeros([])
