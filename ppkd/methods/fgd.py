"""``slim_method: FGD``: Focal and Global Distillation on the neck's levels (Yang et al., CVPR 2022)."""

from ppkd.methods.features import feature_term
from ppkd.terms import Plan


def plan(method):
    """One term on all pairs of neck levels of equal stride; the student's neck and head start from the teacher's."""
    return Plan.of([feature_term(method, "fgd", method.params, "fgd", "neck[*]")], method, inherit=True)
