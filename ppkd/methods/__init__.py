"""Methods: PaddleDetection's slim keys, translated once into terms. Nothing behind this knows the old keys."""

from ppkd.detectors import ANCHORS, TARGETS, detector_for
from ppkd.engine.pairing import sources
from ppkd.engine.plugin_files import load_plugins
from ppkd.errors import UserError, nearest
from ppkd.methods import cwd, ld, matching_guided, neck, own_terms, ppyoloe, yolov3
from ppkd.methods.block import with_users_terms
from ppkd.recipe.method import TERMS

_METHODS = {
    "CWD": cwd.plan,
    "DistillYOLOv3Loss": yolov3.plan,
    "FGD": neck.plan,
    "LD": ld.plan,
    "MGD": neck.plan,
    "MatchingGuided": matching_guided.plan,
    "Mimic": neck.plan,
    "PKD": neck.plan,
    "PPYOLOEDistill": ppyoloe.plan,
    TERMS: own_terms.plan,
}
# What each needs of both detectors; of CWD and PPYOLOEDistill that is what they compare by default.
_NEEDS = {
    "CWD": {"neck"},
    "DistillYOLOv3Loss": {"head.box", "head.objectness", "head.cls", ANCHORS},
    "FGD": {"neck"},
    "LD": {"head.cls", "head.box_dist"},
    "MGD": {"neck"},
    "MatchingGuided": {"backbone.pre_relu"},
    "Mimic": {"neck"},
    "PKD": {"neck"},
    "PPYOLOEDistill": {"neck", "head.cls", "head.box_dist", TARGETS},
}
NAMES = tuple(sorted(_NEEDS))


def plan(method):
    """Translate a slim file's method into a `plan.Plan`, and merge the user's own terms into it.

    Args:
        method: `recipe.MethodSpec`.

    Raises:
        UserError: unknown method, parameter, loss or connector, with the nearest that exist; a plugin that fails.
    """
    load_plugins(method.options.get("plugins") or (), method.file, method.origin.get("plugins") == "-o")
    made = with_users_terms(_METHODS[_known(method)](method), method)
    if not made.terms and made.pseudo_boxes is None:
        raise UserError(f"{method.file}: no term: neither a method nor distill.terms says what is compared")
    return made


def _known(method):
    if method.name not in _METHODS:
        raise UserError(
            f"{method.file}: slim_method: {method.name!r} is no distillation method of ppkd"
            f"{nearest(method.name, NAMES)}; known: {', '.join(NAMES)}; or write terms of your own: distill.terms"
        )
    return method.name


def check_sources(method, plan, student, teacher):
    """Refuse a method that compares what one of the two detectors does not have.

    Terms of the user's own are checked where they are built, one by one.

    Args:
        method: `recipe.MethodSpec`.
        plan: its `plan.Plan`.
        student, teacher: ppdet models.

    Raises:
        UserError: naming the missing source, the detector, and the methods that would work on these two.
    """
    sides = [("student", detector_for(student)), ("teacher", detector_for(teacher))]
    if method.name == TERMS:
        return
    theirs = method.options.get("terms") or {}
    wanted = {name.split("[")[0] for term in plan.terms if term.name not in theirs for name in sources(term.student)}
    abilities = _NEEDS[method.name] & {ANCHORS, TARGETS}
    for side, detector in sides:
        lacking = [sorted(name for name in names if not detector.offers(name)) for names in (wanted, abilities)]
        missing = lacking[0] or lacking[1]
        if missing:
            working = [name for name in NAMES if name != method.name and _fits(name, sides)]
            raise UserError(
                f"{method.file}: {method.name} needs {' and '.join(missing)}, which the {side}'s "
                f"{type(detector.model).__name__} does not have; methods that work on these two detectors: "
                f"{', '.join(working) or 'none'}"
            )


def _fits(name, sides):
    return all(detector.offers(source) for _, detector in sides for source in _NEEDS[name])

