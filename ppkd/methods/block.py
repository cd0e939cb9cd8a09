"""The ``distill:`` block: terms as a user writes them, and the same for what any method comes to."""

import re
from dataclasses import replace

from ppkd.engine.connector_layers import check_connectors
from ppkd.engine.connectors import CONNECTORS
from ppkd.engine.loss_layers import check_loss
from ppkd.engine.pairing import sources
from ppkd.engine.plugin_files import load_installed
from ppkd.errors import UserError, nearest
from ppkd.files.yaml_io import clone, merge
from ppkd.losses import LOSSES
from ppkd.recipe.keys import is_number
from ppkd.recipe.plan import ON, SCHEDULE_KEYS, TermSpec, epoch_of, schedule_keys, schedule_of
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES
from ppkd.recipe.targets import STEPS, Target

TERM_KEYS = (
    "student", "teacher", "student_connector", "teacher_connector", "loss", "weight", "magnitude", "magnitude_steps",
    "from", "max_levels", "trained", "every", "on", *SCHEDULE_KEYS,
)  # fmt: skip
# What records of a run call something else.
_TAKEN = ("loss", "kind", "epoch", "step", "lr")
_NAME = re.compile(r"^[A-Za-z_]\w*$")


def with_users_terms(plan, method):
    """Merge ``distill.terms`` into a method's plan: a term of a known name is changed, any other is added.

    Args:
        plan: `plan.Plan`.
        method: `recipe.MethodSpec`.

    Raises:
        UserError: anything wrong in ``distill.terms``; sources are looked up later, when there are models.
    """
    given = method.options.get("terms") or {}
    where = f"{method.file}: distill.terms"
    if not isinstance(given, dict):
        raise UserError(f"{where} has to be a mapping from a term's name to its keys, found {given!r}")
    terms = {spec.name: spec for spec in plan.terms}
    for name, keys in given.items():
        if not isinstance(name, str) or not _NAME.match(name):
            raise UserError(f"{where}: {name!r} is no name for a term: letters, digits and underscores")
        if name in _TAKEN:
            raise UserError(f"{where}.{name}: in a run's records {name} is something else; give the term another name")
        if name == PSEUDO_BOXES:
            raise UserError(f"{where}.{name}: stands beside terms, not among them: distill.{PSEUDO_BOXES}")
        if not isinstance(keys, dict):
            raise UserError(f"{where}.{name} has to be a mapping with student, teacher, loss, ...; found {keys!r}")
        hint = "" if name in terms else nearest(name, terms)
        terms[name] = _term(name, _over(terms.get(name), keys), method, f"{where}.{name}", hint)
    return replace(plan, terms=list(terms.values()))


def _over(spec, keys):
    """`keys` over those of a method's own term, if there is one of that name."""
    if spec is None:
        return keys
    values = term_block(spec)
    loss, before = keys.get("loss"), values["loss"]["name"]
    if isinstance(loss, str) or (isinstance(loss, dict) and loss.get("name", before) != before):
        del values["loss"]  # another loss does not have the former one's parameters
    return merge(clone(values), keys)


def _term(name, keys, method, where, hint):
    for key in keys:
        if key not in TERM_KEYS:
            raise UserError(f"{where} has no key {key!r}{nearest(str(key), TERM_KEYS)}; it has: {', '.join(TERM_KEYS)}")
    lacking = [key for key in ("student", "loss") if keys.get(key) is None]
    if lacking:
        raise UserError(
            f"{where} lacks {' and '.join(lacking)}: every term names what it compares, and by which loss{hint}"
        )
    _know(keys)
    student = _sources(keys["student"], f"{where}.student")
    teacher = _sources(keys.get("teacher", keys["student"]), f"{where}.teacher")
    loss = clone(check_loss(keys["loss"], f"{where}.loss"))
    _check_number(loss["name"], student, f"{where}.student")
    boxes = getattr(LOSSES.get(loss["name"]), "takes_boxes", False)  # the same for all that is compared with them
    if len(sources(student)) != len(sources(teacher)) and not boxes:
        raise UserError(
            f"{where}: as many sources of the teacher as of the student are needed, found {student} and {teacher}"
        )
    connectors = {}
    for key in ("student_connector", "teacher_connector"):
        connectors[key] = keys.get(key) or "none"
        check_connectors(connectors[key], f"{where}.{key}")
    return TermSpec(
        name,
        student=student,
        teacher=teacher,
        loss=loss,
        weight=_number(keys.get("weight", 1.0), f"{where}.weight"),
        magnitude=_target(keys, where, method.epochs),
        schedule=schedule_of({**method.options, **keys}, method.epochs, where),
        teachers=_names(keys.get("from"), f"{where}.from"),
        max_levels=_count(keys.get("max_levels"), f"{where}.max_levels"),
        on=_on(keys.get("on"), f"{where}.on"),
        trained=_flag(keys.get("trained", True), f"{where}.trained"),
        every=_count(keys.get("every", 1), f"{where}.every"),
        **connectors,
    )


def _know(keys):
    """Import what installed packages offer if a name is in doubt: looking for them takes time."""
    loss = keys["loss"]
    named = [loss if isinstance(loss, str) else loss.get("name") if isinstance(loss, dict) else None]
    links = [keys.get(f"{side}_connector") or "none" for side in ("student", "teacher")]
    links = [each for link in links for each in (link if isinstance(link, list) else [link])]
    links = [each.get("name") if isinstance(each, dict) else each for each in links]
    if any(_unknown(name, LOSSES) for name in named) or any(_unknown(name, CONNECTORS) for name in links):
        load_installed()


def _unknown(name, known):
    return isinstance(name, str) and name not in known


def _sources(value, where):
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise UserError(f"{where} has to be a source such as neck[*], or a list of sources; found {value!r}")


def _check_number(name, student, where):
    """Refuse other numbers of sources than a loss takes; of a plugin's only it knows."""
    kind = LOSSES[name]
    wanted = getattr(kind, "compares", ("one",) if kind.__module__.startswith("ppkd.") else ())
    if wanted and len(sources(student)) != len(wanted):
        told = f"{len(wanted)} sources, {', '.join(wanted)}" if len(wanted) > 1 else "one source"
        raise UserError(f"{where}: loss {name} compares {told}; found {student!r}")


def _number(value, where):
    if not is_number(value) or value < 0:
        raise UserError(f"{where} has to be a number from 0, found {value!r}")
    return value


def _count(value, where):
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{where} has to be a whole number from 1, found {value!r}")
    return value


def _flag(value, where):
    if not isinstance(value, bool):
        raise UserError(f"{where} has to be true or false, found {value!r}")
    return value


def _on(value, where):
    if value not in (None, *ON):
        raise UserError(f"{where} has to be one of {', '.join(ON)}; found {value!r}")
    return value


def _names(value, where):
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where} has to be the name of a teacher, or a list of names; found {value!r}")
    return tuple(names)


def _target(keys, where, epochs):
    value, steps = keys.get("magnitude"), _count(keys.get("magnitude_steps", STEPS), f"{where}.magnitude_steps")
    if value is None:
        if "magnitude_steps" in keys:
            raise UserError(f"{where}.magnitude_steps needs {where.split(': ')[-1]}.magnitude")
        return None
    try:
        if isinstance(value, dict):
            return Target.parse_later({epoch_of(k, epochs, f"{where}.magnitude"): v for k, v in value.items()}, steps)
        return Target.parse(value, steps)
    except ValueError as error:
        wanted = (
            "write a value of the term, or a share of the detection loss, 20%, or of its gradient, 10% of gradient, or "
            "one for each epoch from which on it goes, {0: 20%, 90%: 10%}"
        )
        raise UserError(f"{where}.magnitude: {error}; {wanted}") from None


def plan_block(plan):
    """A `plan.Plan` as the ``distill:`` block that gives it again.

    Returns:
        Nested plain values; keys that have their default value are left out.
    """
    block = {"terms": {spec.name: term_block(spec) for spec in plan.terms}}
    if plan.inherit:
        block["inherit"] = plan.inherit_from or True
    if plan.alpha != 1:
        block["alpha"] = plan.alpha
    if plan.assigner != "student":
        block["assigner"] = plan.assigner
    if plan.pseudo_boxes is not None:
        block[PSEUDO_BOXES] = plan.pseudo_boxes.keys | schedule_keys(plan.pseudo_boxes.schedule)
    block |= plan.parting.keys
    if plan.bank is not None:
        block["bank"] = plan.bank.keys
    if plan.hand_over is not None:
        block |= {"hand_over": plan.hand_over.text, "hand_over_warmup": plan.hand_over.warmup}
    return block


def term_block(spec):
    """A `plan.TermSpec` as its keys in ``distill.terms``."""
    keys = {"student": _plain(spec.student)}
    if spec.teacher != spec.student:
        keys["teacher"] = _plain(spec.teacher)
    for key in ("student_connector", "teacher_connector"):
        if getattr(spec, key) != "none":
            keys[key] = clone(getattr(spec, key))
    keys |= {"loss": clone(spec.loss), "weight": spec.weight}
    if spec.magnitude is not None:
        keys["magnitude"] = spec.magnitude.text
        if spec.magnitude.steps != STEPS:
            keys["magnitude_steps"] = spec.magnitude.steps
    if spec.teachers is not None:
        keys["from"] = list(spec.teachers)
    if spec.max_levels is not None:
        keys["max_levels"] = spec.max_levels
    if not spec.trained:
        keys["trained"] = False
    if spec.every != 1:
        keys["every"] = spec.every
    if spec.on is not None:
        keys["on"] = spec.on
    return keys | schedule_keys(spec.schedule)


def _plain(names):
    return names if isinstance(names, str) else list(names)
