"""Clipping by the gradient's norm: how often it acts, and detection and distillation each by a norm of its own."""

import paddle
from paddle import nn

from ppkd.errors import UserError
from ppkd.training.gradient_parts import norm

_CALLED = {"own": "detection", "theirs": "distillation"}


class Clipping:
    """Takes the place of an optimizer's ``clip_grad_by_norm``, which is of all gradients together.

    With ``distill.clip: apart`` the detection loss's gradient and the distillation's are scaled down to that norm each
    for itself, and then added. So the distillation cannot shrink the detection's, as it does where the common norm is
    mostly its own. With ``distill.moments: apart`` too.

    Nothing is read from the device but by `read`.

    Args:
        optimizer: Paddle's; changed in place.
        distill: `model.DistillModel`, or None.
        scales: whether there is a loss scaler.

    Attributes:
        apart: whether the two gradients are clipped each for itself.

    Raises:
        UserError: ``clip: apart`` without a norm to clip by, or with a loss scaler.
    """

    def __init__(self, optimizer, distill, scales):
        self._clip, self._clipped, self._acted, self._steps = optimizer._grad_clip, False, {}, 0
        by_norm = isinstance(self._clip, nn.ClipGradByGlobalNorm)
        asked = distill is not None and distill.parting.clip
        if asked and not by_norm:
            raise UserError("distill.clip: apart needs a norm to clip by: set OptimizerBuilder.clip_grad_by_norm")
        if asked and scales:
            raise UserError("distill.clip: apart is not for float16, whose gradients are scaled; bfloat16 is fine")
        self.apart = by_norm and distill is not None and distill.parting.any
        if by_norm:
            optimizer._grad_clip = self

    def split(self, parted):
        """Clip both parts of a gradient, each for itself, if that is asked for.

        Args:
            parted: list of `gradient_parts.Parted`, of all parameters; changed.
        """
        if not (parted and self.apart):
            return
        with paddle.no_grad():
            for name in ("own", "theirs"):
                length = norm([getattr(each, name) for each in parted])
                factor = self._clip.clip_norm / length.clip(min=self._clip.clip_norm)
                self._count(f"clipped_{_CALLED[name]}", factor < 1)
                for each in parted:
                    gradient = getattr(each, name)
                    setattr(each, name, gradient * factor.astype(gradient.dtype))
        self._clipped, self._steps = True, self._steps + 1

    def factor(self, gradients):
        """What clipping all of these together multiplies each by; 1 where they were clipped apart, or nothing clips."""
        if self._clipped or not isinstance(self._clip, nn.ClipGradByGlobalNorm):
            return paddle.ones([])
        return self._clip.clip_norm / norm(gradients).clip(min=self._clip.clip_norm)

    def __call__(self, params_grads):
        """What the optimizer calls: pairs of a parameter and its gradient, clipped."""
        if self._clipped:
            self._clipped = False
            return params_grads
        # All are scaled alike, so one tells of all; a copy, for Paddle 3.3 scales in place.
        before = next((g.clone() for _, g in params_grads if g is not None), None)
        clipped = self._clip(params_grads)
        if before is not None:
            self._count("clipped", (before != clipped[0][1]).any())  # those without a gradient are left out
        self._steps += 1
        return clipped

    def _count(self, name, acted):
        acted = acted.astype("float32")
        self._acted[name] = self._acted[name] + acted if name in self._acted else acted

    def read(self):
        """The share of the steps since the last call in which clipping acted, by name; those in which it never did are
        left out."""
        shares = {name: round(float(count) / self._steps, 4) for name, count in self._acted.items()}
        self._acted, self._steps = {}, 0
        return {name: share for name, share in shares.items() if share}
