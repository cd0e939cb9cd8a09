"""No ``slim_method`` at all: the terms of ``distill.terms`` and nothing else."""

from ppkd.errors import UserError
from ppkd.methods.params import read
from ppkd.plan import Plan

DEFAULTS = {"alpha": 1.0, "assigner": "student"}


def plan(method):
    """A plan without a term of its own; ``alpha`` and ``assigner`` as in `plan.Plan`."""
    p = read(method, DEFAULTS)
    if p["alpha"] <= 0:
        raise UserError(f"{method.file}: distill.alpha has to be above 0, found {p['alpha']!r}")
    return Plan.of([], method, alpha=p["alpha"], assigner=p["assigner"])
