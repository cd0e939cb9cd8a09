"""Restarts: the optimizer does not carry the gradients of terms that have ended over to what comes after them."""

import functools
import operator

from ppkd.recipe.hand_over import restarts_of
from ppkd.terminal.log import logger

_CALLED = {
    "first_moment": "the optimizer's mean of gradients is forgotten",
    "moments": "the optimizer's moments are forgotten",
    "average": "training goes on from the averaged weights, whose average begins anew",
}


class Restart:
    """Carries out a run's `hand_over.HandOver` where terms begin or end, and at the epochs that the run names.

    AdamW divides by a running mean of squared gradients that reaches back a thousand steps: after strong terms the
    detection loss learns at a fraction of its rate, and after their end it goes on to, for as long.

    Args:
        config: the run's, see `hand_over.restarts_of`.
        distill: `model.DistillModel`, or None.
        update: `update.Update`.
        averaging: `averaging.Averaging`.
        standing: `standing.Standing`; only read.

    Raises:
        UserError: a key of the wrong kind; an optimizer of which it is not known what it keeps.
    """

    def __init__(self, config, distill, update, averaging, standing):
        self._epochs, self._planned = restarts_of(config)
        self._distill, self._update, self._averaging, self._standing = distill, update, averaging, standing
        self._step = self._warmup = 0
        planned = [self._planned, distill.hand_over if distill is not None else None]
        if any(each is not None and each.parts != ("average",) for each in planned):
            update.optimizing.check_forgets()
        late = [epoch for epoch in self._epochs if epoch >= int(config.get("epoch") or 1)]
        if late:
            logger().warning("restart_epochs: a run of %s epochs does not reach %s", config["epoch"], late)

    def begin_epoch(self):
        """Restart if it is due as the epoch begins.

        Returns:
            What `metrics.jsonl` gets of it, or None.
        """
        epoch, distill = self._standing.epoch, self._distill
        turned = distill.turned(epoch) if distill is not None and distill.hand_over is not None else []
        causes = [("restart", self._planned)] if epoch in self._epochs else []
        causes += [(f"hand-over of {', '.join(turned)}", distill.hand_over)] if turned else []
        if not causes:
            return None
        done = functools.reduce(operator.or_, (cause for _, cause in causes))
        parts = [part for part in done.parts if part != "average" or self._averaging.ema is not None]
        self._forget(parts)
        self._step, self._warmup = self._standing.step, done.warmup
        told = ", ".join(_CALLED[part] for part in parts) or "nothing is forgotten (there is no average: use_ema)"
        logger().info(
            "epoch %d: %s: %s; steps until the learning rate is back: %d",
            epoch + 1, " and ".join(why for why, _ in causes), told, done.warmup,
        )  # fmt: skip
        return {"kind": "restart", "terms": turned, "parts": parts, "warmup": done.warmup}

    def _forget(self, parts):
        if "average" in parts:
            self._averaging.begin_anew()
        if "moments" in parts or "first_moment" in parts:
            self._update.forget(squares="moments" in parts)

    def factor(self):
        """What the learning rate of the coming step is multiplied by."""
        return min((self._standing.step - self._step + 1) / (self._warmup + 1), 1.0)

    def state(self):
        """What resuming needs."""
        return {"step": self._step, "warmup": self._warmup}

    def restore(self, state):
        """Go on as `state` was; None is a state of before there was any."""
        if state is not None:
            self._step, self._warmup = state["step"], state["warmup"]
