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
        UserError: ``clip: apart`` without a norm to clip by, or with a loss scaler; a norm that is not above 0.
    """

    def __init__(self, optimizer, distill, scales):
        self._clip, self._clipped, self._acted, self._steps = optimizer._grad_clip, False, {}, 0
        # Whether each call since the last step acted; Paddle clips each of `param_groups` by a norm of its own.
        self._now, self._group = [], {}
        by_norm = isinstance(self._clip, nn.ClipGradByGlobalNorm)
        if by_norm and not self._clip.clip_norm > 0:
            raise UserError(f"OptimizerBuilder.clip_grad_by_norm has to be above 0, found {self._clip.clip_norm:g}")
        asked = distill is not None and distill.parting.clip
        if asked and not by_norm:
            raise UserError("distill.clip: apart needs a norm to clip by: set OptimizerBuilder.clip_grad_by_norm")
        if asked and scales:
            raise UserError("distill.clip: apart is not for float16, whose gradients are scaled; bfloat16 is fine")
        self.apart = by_norm and distill is not None and distill.parting.any
        if by_norm:
            optimizer._grad_clip = self
            for number, group in enumerate(optimizer._param_groups):
                if isinstance(group, dict):  # otherwise they are the parameters themselves
                    group["grad_clip"] = self
                    self._group |= {id(p): number for p in group["params"]}

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
        self._clipped = True

    def factors(self, pairs):
        """What clipping a step's gradients together multiplies each by; 1 where they were clipped apart, or nothing
        clips.

        Args:
            pairs: list of a parameter and its gradient.
        """
        if self._clipped or not isinstance(self._clip, nn.ClipGradByGlobalNorm):
            return [paddle.ones([])] * len(pairs)
        groups, most = {}, self._clip.clip_norm
        for p, gradient in pairs:
            groups.setdefault(self._group.get(id(p)), []).append(gradient)
        found = {group: most / norm(gradients).clip(min=most) for group, gradients in groups.items()}
        return [found[self._group.get(id(p))] for p, _ in pairs]

    def __call__(self, params_grads):
        """What the optimizer calls, once a group of parameters: pairs of a parameter and its gradient, clipped."""
        if self._clipped:
            return params_grads
        # All are scaled alike, so one tells of all; a copy, for Paddle 3.3 scales in place.
        before = next((g.clone() for _, g in params_grads if g is not None), None)
        clipped = self._clip(params_grads)
        if before is not None:
            self._now.append((before != clipped[0][1]).any())  # those without a gradient are left out
        return clipped

    def end(self):
        """The optimizer has taken its step, or left it."""
        if self._now:
            self._count("clipped", paddle.stack(self._now).any())
        self._steps += bool(self._now) or self._clipped
        self._now, self._clipped = [], False

    def _count(self, name, acted):
        acted = acted.astype("float32")
        self._acted[name] = self._acted[name] + acted if name in self._acted else acted

    def read(self):
        """The share of the steps since the last call in which clipping acted, by name; those in which it never did are
        left out."""
        shares = {name: round(float(count) / self._steps, 4) for name, count in self._acted.items()}
        self._acted, self._steps = {}, 0
        return {name: share for name, share in shares.items() if share}
