"""Images without labels beside the labelled ones of a step: which terms compare them, and what becomes of both."""

import inspect
from dataclasses import dataclass

from ppkd.bridge.bad_images import STAND_IN
from ppkd.errors import UserError
from ppkd.recipe.plan import ALL, LABELLED, UNLABELLED

# What only labels tell.
_OF_LABELS = ("boxes", "boxes_valid", "classes", "assignment")


@dataclass(frozen=True)
class Beside:
    """What there is beside labelled images.

    Attributes:
        there: whether there are images without labels.
        boxed: whether a teacher's boxes stand for their labels.
    """

    there: bool = False
    boxed: bool = False


NOTHING = Beside()


def asked_of_labels(loss):
    """What a loss asks for that labels tell. One that can do without says so by a default: ``assignment=None``.

    Args:
        loss: its layer.
    """
    parameters = inspect.signature(loss.forward).parameters
    return [n for n in _OF_LABELS if n in parameters and parameters[n].default is inspect.Parameter.empty]


def on_of(spec, asked, beside):
    """The images that a term compares, one of `plan.ON`.

    Args:
        spec: `plan.TermSpec`.
        asked: of `asked_of_labels`.
        beside: `Beside`.

    Raises:
        UserError: it asks for labels and is to compare images without, there are none, or its strength is to go by
            gradients, which are those of the detection loss in labelled images.
    """
    lacking = [] if beside.boxed else asked
    if spec.on is None:
        return LABELLED if lacking or not beside.there else ALL
    where = f"{spec.name}.on: {spec.on}"
    if spec.on != LABELLED and lacking:
        raise UserError(
            f"{where}: loss {spec.loss['name']} asks for {', '.join(lacking)}, and images without labels have none; "
            "write on: labelled, or give them the teacher's boxes (distill.pseudo_boxes)"
        )
    if spec.on == UNLABELLED and not beside.there:
        raise UserError(f"{where}: the run has no images without labels; unlabelled: FOLDER gives them")
    by_gradient = spec.magnitude is not None and spec.magnitude.gradient
    if spec.on == UNLABELLED and (by_gradient or spec.schedule.auto):
        what = "stop: auto" if spec.schedule.auto else f"magnitude: {spec.magnitude}"
        raise UserError(
            f"{where}: {what} goes by the detection loss's gradient in the same images, which these do not have; "
            f"give {'stop_epoch' if spec.schedule.auto else 'a value, or a share of the loss (20%)'}"
        )
    return spec.on


def joined(labelled, beside, counts):
    """What terms come to over the images of both kinds: of those with a value of both the mean over all images.

    Args:
        labelled, beside: lists of ``(term, weight, parts)``.
        counts: number of images of either kind.

    Returns:
        The same, one entry a term.
    """
    found = {term.label: (term, weight, parts) for term, weight, parts in labelled}
    shares = [count / max(sum(counts), 1) for count in counts]
    for term, weight, parts in beside:
        if term.label in found:
            both = (found[term.label][2], parts)
            parts = {
                name: sum(share * values[name] for share, values in zip(shares, both) if name in values)
                for name in {**both[0], **both[1]}
            }
        elif not counts[1]:
            parts = {name: value * 0.0 for name, value in parts.items()}
        found[term.label] = (term, weight, parts)
    return list(found.values())


def count_of(batch):
    """How many images of a batch count: none of one that holds a stand-in alone."""
    return 0 if STAND_IN in batch else int(batch["image"].shape[0])


def takes(on, kind):
    """Whether a term whose images are `on` compares those of a kind."""
    return on in (kind, ALL)
