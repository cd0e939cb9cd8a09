"""No ``slim_method`` at all: the terms of ``distill.terms`` and nothing else."""

from ppkd.errors import UserError, nearest
from ppkd.methods.params import read
from ppkd.recipe.method import ENGINE_OPTIONS
from ppkd.recipe.plan import Plan

DEFAULTS = {"alpha": 1.0, "assigner": "student"}


def plan(method):
    """A plan without a term of its own; ``alpha`` and ``assigner`` as in `plan.Plan`."""
    for key in method.params:
        if key not in DEFAULTS:
            known = (*ENGINE_OPTIONS, *DEFAULTS)
            raise UserError(
                f"{method.file}: distill has no key {key!r}{nearest(str(key), known)}; without a slim_method it has: "
                f"{', '.join(known)}"
            )
    p = read(method, DEFAULTS)
    if p["alpha"] <= 0:
        raise UserError(f"{method.file}: distill.alpha has to be above 0, found {p['alpha']!r}")
    return Plan.of([], method, alpha=p["alpha"], assigner=p["assigner"])
