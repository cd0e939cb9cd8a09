"""Compares the terms of a batch, and those of a line together whose loss makes fewer operations of several levels.

Such a loss class has a static method ``together``. It takes lists of losses, which differ in their parameters only, of
the student's and of the teacher's tensors, and what ``forward`` asks the context for, which is the same for all levels;
it returns a list of what ``forward`` gives for each.
"""

from ppkd.engine.terms import up_all
from ppkd.losses.common import full_precision, up


def compare_all(active, student, taught, context):
    """What all active terms come to.

    Args:
        active: list of ``(term, weight)``.
        student: its `recorders.Recorder` after the step.
        taught: label of a term -> what `terms.Term.of_teacher` or `from_kept` gives.
        context: `Context` of the batch.

    Returns:
        List of ``(term, weight, parts)`` in the order of `active`, parts as `terms.Term.forward` gives them.
    """
    groups, found = {}, {}
    for term, _ in active:
        groups.setdefault((id(term.spec), term.teacher) if _takes_several(term.loss) else term.label, []).append(term)
    for terms in groups.values():
        if len(terms) == 1:
            made = [terms[0].compare(student, taught[terms[0].label], context)]
        else:
            sides = [term.inputs(student, taught[term.label], context) for term in terms]
            made = _together(terms, *zip(*sides), context)
        found |= {term.label: parts for term, parts in zip(terms, made)}
    return [(term, weight, found[term.label]) for term, weight in active]


def _takes_several(loss):
    # A loss with a hook is called by itself: someone looks at what goes in or comes out.
    return hasattr(type(loss), "together") and not loss._forward_pre_hooks and not loss._forward_post_hooks


@full_precision
def _together(terms, students, teachers, context):
    losses = [term.loss for term in terms]
    made = type(losses[0]).together(losses, up_all([*students]), up_all([*teachers]), **context.pick(terms[0].needs))
    return [{name: up(x) for name, x in parts.items()} for parts in made]
