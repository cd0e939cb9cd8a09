"""Losses and gradients that are not finite: found, named, kept for reproduction, skipped or the end of the run."""

import re
from dataclasses import replace

import paddle
from paddle import _C_ops, nn
from paddle import distributed as dist

from ppkd.bridge.bad_images import STAND_IN
from ppkd.engine.packing import by_type, packed
from ppkd.errors import UserError
from ppkd.terminal.log import logger
from ppkd.training.batch_size import count
from ppkd.training.reproducer import Entry, Reproducer, listed

MODES = ("stop", "skip")
_ADVICE = "Lower the learning rate or the terms' weights, or set OptimizerBuilder.clip_grad_by_norm"


class Numerics:
    """Watches the losses and gradients of a run.

    ``on_nonfinite: stop`` reads nothing from the device in ordinary steps: losses are kept there, and looked at where
    they are read anyway, at log lines, and before anything is saved. ``skip`` reads one value a step, before the
    optimizer's: a step with anything that is not finite leaves weights, statistics and the optimizer as they were.

    Several processes skip alike: what they decide by are the gradients after their exchange, of which
    `parallel.Synchronised` makes NaN where the loss of any of them is not finite. With a loss scaler (float16)
    gradients beyond the type's range are its business, and the losses alone are looked at.

    Args:
        config: the run's config: ``on_nonfinite``, and ``max_nonfinite``, so many such steps in a row end the run.
        model: the student or a `model.DistillModel`.
        detector: the student's `detectors.Detector`.
        folder: the run's.
        seed, rank: of the run.
        reload: function from epoch and batch to that batch, which is needed again only if it is bad.
        scales: whether there is a loss scaler.

    Attributes:
        skips: whether steps are skipped.
        skipped, row: steps skipped in all, and now in a row.

    Raises:
        UserError: an unknown mode.
    """

    def __init__(self, config, model, detector, folder, seed, rank, reload, scales=False):
        mode = config.get("on_nonfinite") or MODES[0]
        if mode not in MODES:
            raise UserError(f"on_nonfinite has to be one of {', '.join(MODES)}, found {mode!r}")
        self.skips, self._limit = mode == "skip", count(config, "max_nonfinite", 5, least=1)
        self._model, self._detector, self._scales = model, detector, scales
        self._folder, self._reload, self._reproducer = folder, reload, Reproducer(model, folder, seed, rank)
        self.skipped = self.row = 0
        self._pending, self._counted, self._before, self._fed = [], [], None, False

    def begin(self):
        """A step of the optimizer begins."""
        self._counted, self._fed = [], False
        if self.skips:
            self._pending = []
            self._before = [packed(tensors) for tensors in self._statistics()], self._detector.state()

    def _put_back(self):
        for tensors, (copies, _) in zip(self._statistics(), self._before[0]):
            for tensor, copy in zip(tensors, copies):
                copy._share_buffer_to(tensor)  # no copy: nobody else needs it

    def _statistics(self):
        return by_type(statistics(self._model))

    def add(self, place, inputs, losses):
        """A batch is done.

        Args:
            place: epoch, batch and step, from 0.
            inputs: ppdet's batch as it was before the model had it.
            losses: scalar tensors by name.
        """
        # Where steps are stopped at, the batch can be loaded again: it depends on its place alone.
        kept = inputs if self.skips else None
        values = {name: value.detach() for name, value in losses.items()}
        self._fed |= bool(losses)
        if losses and STAND_IN not in inputs:
            self._counted.append(values)
        self._pending.append(Entry(*place, inputs.get("im_id"), kept, values))

    def good(self):
        """Whether the optimizer is to take its step; with ``stop`` always, but where all images of it were bad.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        if not self.skips or not self._fed:
            return self._fed
        gradients = [] if self._scales else [p.grad for p in self._model.parameters() if p.grad is not None]
        losses = [value for entry in self._pending for value in entry.losses.values()]
        if bool(_finite_losses(losses).logical_and(_finite_gradients(gradients))):
            self.row = 0
            return True
        self._counted = []
        self._put_back()
        self.skipped, self.row = self.skipped + 1, self.row + 1
        found = any(entry.broken() for entry in self._pending)
        told = self._reproducer.report(self._pending, [] if found else _broken_gradients(self._model), weights=True)
        self._detector.restore(self._before[1])
        if self.row >= self._limit:
            raise UserError(
                f"{told}. These were {self.row} such steps in a row (max_nonfinite: {self._limit}); checkpoints in "
                f"{self._folder} are as they were. {_ADVICE}"
            )
        logger().warning("step skipped: %s", told)
        return False

    def take(self):
        """Losses by name of each batch since the last call; none of a skipped step's."""
        counted, self._counted = self._counted, []
        return counted

    def check(self):
        """Look at the losses since the last look.

        Raises:
            UserError: one of them is not finite.
        """
        pending, self._pending = self._pending, [] if not self.skips else self._pending
        values = [value for entry in pending for value in entry.losses.values()]
        if not self.skips and values and not bool(_finite_losses(values)):
            self._stop(pending)

    def failed(self, place, inputs, error):
        """The forward of a batch raised; Paddle's binary cross-entropy does so where it is given a NaN.

        Args:
            place, inputs: as of `add`.
            error: what it raised.

        Raises:
            UserError: the error tells of a NaN and the run is not to skip, or cannot, since other processes wait for
                this one.
            Exception: `error` itself, if it tells of something else.
        """
        if not re.search(r"\b(nan|inf)\b", str(error), re.I):
            raise error
        line = next((line for line in str(error).splitlines() if "InvalidArgument" in line), type(error).__name__)
        told = {f"detection ({line.strip()})": paddle.full([], float("nan"))}
        self._pending.append(Entry(*place, inputs.get("im_id"), inputs, told))
        self._fed = True
        if not self.skips or dist.get_world_size() > 1:
            self._stop(self._pending)

    def _stop(self, pending):
        """End the run because of the first of the batches that is not finite."""
        first = next(entry for entry in pending if entry.broken())
        first = replace(first, inputs=first.inputs or self._reload(first.epoch, first.batch))
        told = self._reproducer.report([first], [], weights=False)
        raise UserError(f"{told}. Checkpoints in {self._folder} are as they were. {_ADVICE}")

    def check_weights(self, states, name):
        """Refuse to save weights that are not finite.

        Args:
            states: dicts of tensors.
            name: of the checkpoint.

        Raises:
            UserError: some are not; names them.
        """
        tensors = [t for state in states for t in (state or {}).values() if _is_float(t)]
        if tensors and not bool(_finite(tensors)):
            broken = [k for s in states for k, t in (s or {}).items() if _is_float(t) and not bool(_finite([t]))]
            raise UserError(
                f"{name} is not saved: these weights are not finite any more: {listed(broken)}. Checkpoints in "
                f"{self._folder} are as they were. {_ADVICE}"
            )

    def state(self):
        """What resuming needs."""
        return {"skipped": self.skipped, "row": self.row}

    def restore(self, state):
        """Go on as `state` was; None is a state of before there was any."""
        if state is not None:
            self.skipped, self.row = state["skipped"], state["row"]


def statistics(model):
    """Tensors of a model that a forward in train mode changes: buffers, and the running ones of norm layers.

    A layer that counts finite values only says so (``counts_finite``), and its buffers are not among them.
    """
    layers = [x for x in model.sublayers(True) if not getattr(x, "counts_finite", False)]
    held = [tensor for layer in layers for tensor in layer.buffers(include_sublayers=False)]
    running = [getattr(x, n) for x in layers for n in ("_mean", "_variance") if _is_norm(x)]
    return [*held, *(tensor for tensor in running if tensor is not None)]


def _is_norm(layer):
    return isinstance(layer, (nn.layer.norm._BatchNormBase, nn.BatchNorm))


def _finite(tensors):
    """Whether all values are finite: a tensor, which stays on the device."""
    return paddle.stack([paddle.isfinite(t).all() for t in tensors]).all() if tensors else paddle.to_tensor(True)


def _finite_losses(losses):
    """`_finite` of scalars."""
    wholes = [packed(each)[1].astype("float32") for each in by_type(losses)]
    return paddle.isfinite(wholes[0] if len(wholes) == 1 else paddle.concat(wholes)).all()


def _finite_gradients(gradients):
    """`_finite` of gradients of which the finite ones are of no use any more where it is false: zeros may be left."""
    found = []
    for each in by_type(gradients):
        if each[0].dtype == paddle.float32:
            # Of a loss scaler, which multiplies with 1 here.
            found.append(_C_ops.check_finite_and_unscale_(each, paddle.ones([1]))[1].logical_not())
        else:
            found.append(_finite(each).reshape([1]))
    return paddle.concat(found).all() if found else paddle.ones([], "bool")


def _is_float(tensor):
    return isinstance(tensor, paddle.Tensor) and tensor.is_floating_point() and tensor.size


def _broken_gradients(model):
    named = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    return [name for name, grad in named if not bool(paddle.isfinite(grad).all())]
