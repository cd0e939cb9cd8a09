"""Turns a recipe into models: student, teachers and the DistillModel around them."""

from paddle.utils import unique_name

from ppkd.bridge.weights import inherit, load_into, load_teacher
from ppkd.bridge.workspace import build_detector
from ppkd.engine.model import DistillModel
from ppkd.engine.teacher_inputs import preparation_for
from ppkd.errors import UserError, nearest
from ppkd.methods import check_sources, plan
from ppkd.recipe.plan import TEACHER, UNLABELLED
from ppkd.terminal.log import logger


def build_student(recipe, load=True):
    """Build the student and load its ``pretrain_weights``."""
    # Names restart with every model, so that an optimizer's state fits the same recipe in any process.
    with unique_name.guard():
        student = build_detector(recipe.student)
    weights = recipe.student.get("pretrain_weights")
    if load and weights:
        logger().info("student: %s", load_into(student, weights, "student weights (pretrain_weights)"))
    return student


def build_model(recipe, load=True):
    """Build what a run trains: the plain student, or a `DistillModel` if the recipe has a method.

    Args:
        recipe: `recipe.Recipe`.
        load: whether to load the student's initial weights (a resumed run has its own).

    Raises:
        UserError: weights that do not fit, sources that do not exist, unknown parameters.
    """
    student = build_student(recipe, load)
    if recipe.method is None:
        return student
    steps = plan(recipe.method)
    teachers = {name: build_teacher(spec) for name, spec in recipe.teachers.items()}
    # Connectors draw random numbers; the student's training must not depend on whether there are any.
    with unique_name.guard("distill_"):
        model = wrap(recipe, steps, student, teachers)
    for name, spec in recipe.teachers.items():
        _load_teacher(name, teachers[name], spec, model)
    if steps.inherit and load:
        source, taken = inherit_parts(steps, student, teachers)
        logger().info(
            "student: %d tensors of its %s start from the %s's (distill.inherit=false turns this off)",
            len(taken), " and ".join(steps.inherit), source,
        )  # fmt: skip
    _describe(model)
    return model


def wrap(recipe, steps, student, teachers):
    """The `DistillModel` of a recipe around models that are built already, weights or not.

    Args:
        recipe: `recipe.Recipe`.
        steps: its `plan.Plan`.
        student: ppdet model.
        teachers: name -> ppdet model.

    Raises:
        UserError: sources, connectors or losses that these models do not go with.
    """
    for teacher in teachers.values():
        check_sources(recipe.method, steps, student, teacher)
    try:
        beside = bool(recipe.student.get(UNLABELLED))
        classes = recipe.student.get("num_classes")
        return DistillModel(student, teachers, steps, _preparations(recipe), recipe.teachers, beside, classes)
    except UserError as error:
        raise UserError(f"{recipe.method.file}: {error}") from error


def inherit_parts(steps, student, teachers):
    """Let the student start from a teacher's weights, in the parts that a plan says.

    Args:
        steps: `plan.Plan` whose ``inherit`` names any.
        student: ppdet model.
        teachers: name -> ppdet model.

    Returns:
        ``(the teacher's name, names of the tensors that were taken)``.

    Raises:
        UserError: there is no such teacher.
    """
    name = steps.inherit_from or next(iter(teachers))
    if name not in teachers:
        raise UserError(f"distill.inherit: there is no teacher {name!r}{nearest(name, teachers)}")
    return name, inherit(student, teachers[name], steps.inherit)


def _preparations(recipe):
    found = {}
    for name, spec in recipe.teachers.items():
        prepare, notes = preparation_for(recipe.student, spec)
        for note in notes:
            logger().info("%s: %s", _called(name), note)
        if prepare is not None:
            found[name] = prepare
    return found


def build_teacher(spec):
    """Build the ppdet model of a `teachers.TeacherSpec`, without its weights."""
    with unique_name.guard("teacher_"):
        return build_detector(spec.config)


def build_teachers(recipe, model):
    """The teachers of a recipe with their weights, as `build_model` has made them for `model`."""
    teachers = {name: build_teacher(spec) for name, spec in recipe.teachers.items()}
    for name, spec in recipe.teachers.items():
        _load_teacher(name, teachers[name], spec, model)
    return teachers


def _load_teacher(name, teacher, spec, model):
    if spec.weights is None:
        how = f"-o {'' if name == TEACHER else 'distill.teachers.'}{name}.pretrain_weights=PATH"
        raise UserError(
            f"{spec.file}: the {_called(name)} has no weights (pretrain_weights is null); an untrained teacher teaches "
            f"nothing. Give them with {how}"
        )
    logger().info("%s: %s", _called(name), load_teacher(teacher, spec.weights, needed_parts(model, name), spec.config))
    if getattr(teacher, "notice", None):
        logger().info("%s: %s", _called(name), teacher.notice)


def needed_parts(model, name):
    """The parts of the teacher `name` that a DistillModel runs, terms or boxes: first components of module paths."""
    taps = [tap for term in model.terms if term.teacher == name for tap in term.taps(1)]
    found = {"backbone", "neck"} | {path.split(".")[0] for tap in taps for path in tap.paths}
    detects = model.boxes is not None and model.boxes.teacher == name
    return found | {part for part, _ in model.teachers[name].named_children()} if detects else found


def _called(name):
    return name if name == TEACHER else f"teacher {name}"


def _describe(model):
    for term in model.terms:
        for students, teachers in term.pairs:
            for ours, theirs in zip(students, teachers):
                logger().info(
                    "term %s: student %s (%d channels) from %s %s (%d channels), %s",
                    term.label, ours.source, ours.channels, _called(term.teacher), theirs.source, theirs.channels,
                    _strength(term),
                )  # fmt: skip
    own = sum(p.size for p in model.distillation.parameters())
    if model.boxes is not None:
        logger().info("images without labels: boxes of %s, weight %g", _called(model.boxes.teacher),
                      model.boxes.spec.weight)  # fmt: skip
    logger().info("distillation: %d terms, %d trained parameters of their own", len(model.terms), int(own))
    if model.alpha != 1:
        logger().info("alpha: while terms are on, loss is %g times the sum of the detection loss and them", model.alpha)


def _strength(term):
    target, every = term.spec.magnitude, term.spec.every
    strength = f"weight {term.weight(0):g}" if target is None else f"brought to {target}"
    return strength + (f", one batch in {every}" if every > 1 else "")
