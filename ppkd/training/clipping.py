"""Clipping by the gradient's norm: how often it acts, and detection and distillation each by a norm of its own."""

import paddle
from paddle import nn

from ppkd.errors import UserError
from ppkd.losses.ranks import averaged


class Clipping:
    """Takes the place of an optimizer's ``clip_grad_by_norm``, which is of all gradients together.

    With ``distill.clip: apart`` the detection loss's gradient and the distillation's are scaled down to that norm each
    for itself, and then added. So the distillation cannot shrink the detection's, as it does where the common norm is
    mostly its own. It takes a second backward pass through what lies below the sources, as long as terms are on.

    Nothing is read from the device but by `read`.

    Args:
        optimizer: Paddle's; changed in place.
        parameters: all that are trained.
        distill: `model.DistillModel`, or None.
        scales: whether there is a loss scaler.

    Raises:
        UserError: ``apart`` without a norm to clip by, or with a loss scaler.
    """

    def __init__(self, optimizer, parameters, distill, scales):
        self._clip, self._parameters, self._distill = optimizer._grad_clip, parameters, distill
        self._kept, self._clipped, self._acted, self._steps = None, False, {}, 0
        by_norm = isinstance(self._clip, nn.ClipGradByGlobalNorm)
        self.apart = distill is not None and distill.clip == "apart"
        if self.apart and not by_norm:
            raise UserError("distill.clip: apart needs a norm to clip by: set OptimizerBuilder.clip_grad_by_norm")
        if self.apart and scales:
            raise UserError("distill.clip: apart is not for float16, whose gradients are scaled; bfloat16 is fine")
        if by_norm:
            optimizer._grad_clip = self

    def separates(self, losses):
        """The distillation's part of a batch's loss where it is to be clipped apart, else None.

        Args:
            losses: of a training step, by name.
        """
        return self._distill.part(losses) if self.apart else None

    def keep(self, part):
        """Keep the gradient of a batch's distillation; the graph stays, for the whole loss is to go backward after it.

        Args:
            part: what `separates` gave, as it enters the loss.
        """
        found = paddle.grad(part, self._parameters_trained(), retain_graph=True, allow_unused=True)
        if self._kept is None:
            self._kept = found
        else:
            self._kept = [a if b is None else b if a is None else a + b for a, b in zip(self._kept, found)]

    def _parameters_trained(self):
        return [p for p in self._parameters if not p.stop_gradient]

    def split(self):
        """Clip what was kept, and what else there is of gradients; to be called once before the optimizer's step."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        pairs = list(zip(self._parameters_trained(), kept))
        with paddle.no_grad():
            # In the order of the parameters, with zeros, since all ranks have to take part in every one.
            theirs = [(p, averaged(paddle.zeros_like(p) if g is None else g)) for p, g in pairs if p.grad is not None]
            own = [p.grad - g for p, g in theirs]
            factors = []
            for name, gradients in (("detection", own), ("distillation", [g for _, g in theirs])):
                norm = paddle.stack([g.astype("float32").square().sum() for g in gradients]).sum().sqrt()
                factors.append(self._clip.clip_norm / norm.clip(min=self._clip.clip_norm))
                self._count(f"clipped_{name}", factors[-1] < 1)
            for (p, g), rest in zip(theirs, own):
                p.grad = rest * factors[0].astype(rest.dtype) + g * factors[1].astype(g.dtype)
        self._clipped, self._steps = True, self._steps + 1

    def forget(self):
        """The step is not taken."""
        self._kept = None

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
