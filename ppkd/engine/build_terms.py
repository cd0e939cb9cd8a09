"""Makes the terms of one line of a recipe between a student and a teacher, and checks that they go together."""

from collections import Counter

from ppkd.detectors.context import Context
from ppkd.engine.beside import NOTHING
from ppkd.engine.pairing import match_levels, sources
from ppkd.engine.shared_queries import SharedQueriesTerm
from ppkd.engine.terms import Term
from ppkd.errors import UserError
from ppkd.losses import LOSSES

# Sources whose values are distances in cells.
_IN_CELLS = ("head.box_dist", "head.ltrb")


def build_terms(spec, student, sender, alone=True, beside=NOTHING):
    """The `Term`s of a spec between a student and one teacher: one a pair of levels, or one for all of them.

    Args:
        spec: the `plan.TermSpec`.
        student: `detectors.Detector`.
        sender: the `Sender`.
        alone: whether it is the only teacher.
        beside: `beside.Beside`.

    Raises:
        UserError: sources that do not exist, fit or pair, or a loss that asks for what the student has not.
    """
    kind = LOSSES.get(spec.loss["name"])
    pairs = match_levels(spec, student, sender.detector, sender.scale, getattr(kind, "takes_boxes", False))
    for ours, theirs in ((o, t) for students, teachers in pairs for o, t in zip(students, teachers)):
        if theirs.source.startswith(_IN_CELLS) and ours.stride != theirs.stride:
            raise UserError(
                f"{spec.name}: {theirs.source} is counted in cells, and the student's are of {ours.stride} pixels, "
                f"the teacher's of {theirs.stride}: boxes need equal ones (with input_scale: 2 or 0.5 they pair)"
            )
    together = getattr(kind, "all_levels", False)
    constants = {name: getattr(student, name, None) for name in Context.STATIC if name != "strides"}
    least, classes = getattr(kind, "least_classes", 1), constants["num_classes"]
    if classes is not None and classes < least:
        raise UserError(
            f"{spec.name}.loss: {spec.loss['name']} compares classes with each other and needs {least} or more; "
            f"num_classes is {classes}"
        )
    groups = [pairs] if together else [[pair] for pair in pairs]
    make = SharedQueriesTerm if getattr(kind, "shares_queries", False) else Term
    terms = [make(spec, group, constants, sender, alone, student, beside) for group in groups]
    _tell_apart(terms)
    if "assignment" in terms[0].needs:
        if not student.assigns:
            raise UserError(f"{spec.name}: {type(student.model).__name__} does not tell its target assignment")
        if len(pairs) != len(student.levels(sources(spec.student)[0])):
            raise UserError(f"{spec.name}: student and teacher need the same strides: all have targets")
    if "num_classes" in terms[0].needs and constants["num_classes"] is None:
        raise UserError(f"{spec.name}: {type(student.model).__name__} does not tell the number of its classes")
    return terms


def _tell_apart(terms):
    """Number the terms whose levels have one stride: by its label each finds what the teacher says to it."""
    seen = Counter()
    for term in terms:
        seen[term.label] += 1
        if seen[term.label] > 1:
            term.label += f"-{seen[term.label]}"
