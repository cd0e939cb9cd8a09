"""``slim_method: MatchingGuided``: Matching Guided Distillation of backbone stages (Yue et al., ECCV 2020)."""

from ppkd.errors import UserError
from ppkd.losses.partial_l2 import REDUCERS
from ppkd.methods.params import choice, read
from ppkd.recipe.plan import Plan, TermSpec

# The authors' for detectors. They divide the stages c2 to c5 by 5e7 and 5e6.
STAGES, FACTORS = [4, 8, 16, 32], [2e-8, 2e-8, 2e-7, 2e-7]
DEFAULTS = {
    "stages": None,
    "factors": None,
    "reducer": "amp",
    "margin": True,
    "norm": "gn",
    "groups": 32,
    "update_every": 5000,
    "update_until": 20000,
    "update_later": 31000,
    "track": 1000,
    "loss_weight": 1.0,
}
NORMS = ("gn", "bn", "sync_bn", "none")
_OF_MATCH = ("reducer", "margin", "update_every", "update_until", "update_later", "track")


def plan(method):
    """One term on the stages of both backbones before their last ReLU."""
    p = read(method, DEFAULTS)
    choice(method, "reducer", p["reducer"], REDUCERS)
    kind = choice(method, "norm", p["norm"], NORMS)
    factors = _factors(method, p["stages"], p["factors"])
    source = f"backbone.pre_relu[{','.join(f's{stride}' for stride in factors)}]"
    groups = {"groups": p["groups"]} if kind == "gn" else {}
    term = TermSpec(
        "matching",
        student=source,
        teacher=source,
        student_connector="none" if kind == "none" else {"name": "norm", "kind": kind, **groups},
        teacher_connector={"name": "match", **{key: p[key] for key in _OF_MATCH}},
        loss={"name": "partial_l2", "factors": factors},
        weight=p["loss_weight"] if any(factors.values()) else 0.0,
    )
    return Plan.of([term], method)


def _factors(method, stages, factors):
    """Stride -> factor on its term."""
    stages = STAGES if stages is None else stages
    if not _numbers(stages, int) or len(set(stages)) < len(stages) or min(stages) < 1:
        raise UserError(f"{method.file}: stages has to be a list of strides such as {STAGES}, found {stages!r}")
    if factors is None:
        known = dict(zip(STAGES, FACTORS))
        if unknown := [stride for stride in stages if stride not in known]:
            raise UserError(f"{method.file}: factors is needed for stages of other strides than {STAGES}: {unknown}")
        return {stride: known[stride] for stride in stages}
    if not _numbers(factors, (int, float)) or len(factors) != len(stages) or min(factors) < 0:
        raise UserError(
            f"{method.file}: factors has to be a list of numbers from 0, one for each of stages, {stages}; "
            f"found {factors!r}"
        )
    return dict(zip(stages, factors))


def _numbers(values, kind):
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
