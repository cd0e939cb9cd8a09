"""``slim_method: CWD``: channel-wise distillation of features and class logits (Shu et al., ICCV 2021)."""

from ppkd.errors import UserError
from ppkd.methods.features import feature_term
from ppkd.methods.params import choice
from ppkd.recipe.plan import Plan

PLACES = ("neck", "backbone", "head.cls", "head.objectness")
# Where PaddleDetection compares: on the neck's levels, with GFL on the class logits too.
_DEFAULT_PLACES = {"GFL": ["neck", "head.cls"]}


def plan(method):
    """One term a place and pair of levels of equal stride; ``places`` overrides PaddleDetection's choice."""
    params = dict(method.params)
    places = params.pop("places", None) or _DEFAULT_PLACES.get(method.architecture, ["neck"])
    if not isinstance(places, list):
        raise UserError(f"{method.file}: places has to be a list of {', '.join(PLACES)}; found {places!r}")
    terms = []
    for place in places:
        choice(method, "places", place, PLACES)
        name = f"cwd_{place.split('.')[-1]}"
        terms.append(feature_term(method, "cwd", params, name, f"{place}[*]", connect=not place.startswith("head.")))
    return Plan.of(terms, method)
