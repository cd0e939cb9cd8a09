"""``slim_method: FGD``, ``PKD``, ``MGD`` and ``Mimic``: one feature distiller on the neck's levels."""

from ppkd.methods.features import feature_term
from ppkd.recipe.plan import Plan


def plan(method):
    """One term on all pairs of neck levels of equal stride, named after the method.

    With FGD the student's neck and head start from the teacher's (Yang et al., CVPR 2022) unless the file says
    otherwise.
    """
    name = method.name.lower()
    return Plan.of([feature_term(method, name, method.params, name, "neck[*]")], method, inherit=method.name == "FGD")
