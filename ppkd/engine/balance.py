"""How strongly each part of a distillation pulls at the student, measured on one batch beside the detection loss."""

import contextlib
import math
from dataclasses import dataclass

import paddle

from ppkd.bridge.random_state import random_state_kept
from ppkd.terminal.table import text_table

DETECTION = "detection"


@dataclass(frozen=True)
class Pull:
    """One part of the training loss and the gradient that it gives the student.

    Attributes:
        name: `DETECTION` for the student's own loss, else as in the log: ``fgd.s8.fg``.
        value: its value, weighted as it enters the sum (before `DistillModel.alpha`, which scales all alike).
        norm: Euclidean norm of its gradient with respect to all trained parameters of the student, before alpha.
        share: `norm` over the sum of all norms, 0 to 1; 0 if there is no gradient at all.
        cosine: between its gradient and the detection loss's, -1 to 1: below 0 it works against the detection loss.
            None if one of the two is 0.
    """

    name: str
    value: float
    norm: float
    share: float
    cosine: float | None


def measure(model, batch):
    """Measure what every part of a training step's loss does to the student; the model is left as it was.

    Takes one forward and, for every part, one backward pass through the student.

    Args:
        model: `model.DistillModel`, in any mode; its ``epoch`` decides which terms are on.
        batch: a training batch of `loader.TrainLoader`, with ``epoch_id``.

    Returns:
        List of `Pull`: the detection loss first, then the parts in the order of the terms. Terms whose weight is 0 in
        this epoch are not in it. A value or norm may be infinite or not a number: nothing is refused here.
    """
    with untouched(model):
        parts = loss_parts(model, batch)
        inputs, beside = trained_parameters(model.student), trained_parameters(model.distillation)
        own = gradient(parts[DETECTION], inputs)
        own_norm = _norm(own)
        found = [(DETECTION, parts.pop(DETECTION), own_norm, own_norm * own_norm)]
        for name in list(parts):
            value = parts.pop(name)
            pull = gradient(value, inputs, beside)
            found.append((name, value, _norm(pull), _dot(pull, own)))
        total = sum(norm for _, _, norm, _ in found)
        return [
            Pull(
                name,
                float(value),
                norm,
                norm / total if total else 0.0,
                dot / (norm * own_norm) if norm and own_norm else None,
            )
            for name, value, norm, dot in found
        ]


def loss_parts(model, batch):
    """The parts whose sum, times alpha, a training step of `model` minimises.

    Puts the model into train mode and runs it, batch norm's running statistics and all; see `untouched`.

    Args:
        model: `model.DistillModel`.
        batch: as for `measure`; its dict is not changed.

    Returns:
        Dict of name -> scalar tensor with its graph: `DETECTION` first.
    """
    seen = []
    handle = model.student.register_forward_post_hook(lambda layer, inputs, output: seen.append(dict(output)))
    try:
        model.train()
        losses = model(dict(batch))
    finally:
        handle.remove()
    own = seen[-1]
    labels = tuple(term.label for term, _ in model.active_terms())
    parts = {k: v for k, v in losses.items() if k in labels or k.startswith(tuple(f"{x}." for x in labels))}
    return {DETECTION: own["loss"], **parts}


def trained_parameters(layer):
    """The parameters of `layer` that get gradients."""
    return [p for p in layer.parameters() if not p.stop_gradient]


def gradient(value, inputs, beside=()):
    """The gradient of scalar `value` with respect to each of `inputs`, None where it does not depend on it.

    Neither the graph nor any parameter's ``grad`` is changed.

    Args:
        value: with its graph.
        inputs: list of tensors.
        beside: all other parameters that a training step's ``backward`` would reach, none of them among `inputs`. Of
            Paddle 2.6 and 3.3 on the CPU: the gradient that layer_norm passes on lacks the factor of its scale where
            the scale's own gradient is not asked for. ``backward`` asks for every one, and so does this.
    """
    if value.stop_gradient:
        return [None] * len(inputs)
    return paddle.grad(value, [*inputs, *beside], retain_graph=True, allow_unused=True)[: len(inputs)]


def _norm(gradients):
    return math.sqrt(_dot(gradients, gradients))


def _dot(a, b):
    # Products in float64: one tensor's sum of squares may be beyond float32 while its norm is not.
    pairs = [(x, y) for x, y in zip(a, b) if x is not None and y is not None]
    return float(sum(float((x.astype("float64") * y.astype("float64")).sum()) for x, y in pairs))


@contextlib.contextmanager
def untouched(model):
    """A block that may run `model` in any mode: modes, statistics and random numbers are put back afterwards.

    What is put back are the modes of all layers, every tensor that no gradient trains (buffers, running statistics),
    and the random states of Python, NumPy and Paddle.

    Args:
        model: any ``nn.Layer``.
    """
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    kept = [x for x in (*model.parameters(), *model.buffers()) if x.stop_gradient]
    copies = [x.clone() for x in kept]
    try:
        with random_state_kept():
            yield
    finally:
        with paddle.no_grad():
            for tensor, copy in zip(kept, copies):
                paddle.assign(copy, tensor)
        for layer, training in modes:
            layer.training = training


def table(pulls):
    """The measurement as text with aligned columns, no line break at the end.

    Args:
        pulls: list of `Pull`.
    """
    rows = [("part", "loss", "gradient", "share", "cosine")]
    for p in pulls:
        cosine = "-" if p.cosine is None else f"{p.cosine:+.2f}"
        rows.append((p.name, f"{p.value:.4g}", f"{p.norm:.4g}", f"{p.share:.1%}", cosine))
    return text_table(rows)
